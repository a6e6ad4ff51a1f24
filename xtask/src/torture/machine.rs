// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that is tortured.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use wire::STOP_BYTE;

use super::outcome::{Outcome, Run};
use super::plan::{CPUS, Plan};
use crate::iso;
use crate::paths::Paths;
use crate::platform::accelerator::Accelerator;
use crate::platform::{Boot, Engine, MachineConfig, Platform};
use crate::process::OwnedChild;
use crate::progress::Progress;
use crate::run::bundle;

/// Memory of the machine, in MiB.
const MEMORY_MIB: u64 = 512;

/// How long the co-kernel may write nothing to its log: a round, and a look at all the memory.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same where instructions are slow.
const SLOW_PATIENCE: Duration = Duration::from_secs(300);
/// How often its log is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// When it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// After so many rounds.
    Rounds(u64),
    /// No round begins after this time.
    Time(Duration),
}

/// What the machine boots, and where its files are.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The co-kernel.
    pub image: PathBuf,
    /// For the bundle and the log, which stay there.
    pub folder: PathBuf,
}

impl Machine {
    /// Runs the plan to its end.
    ///
    /// # Errors
    /// When the machine cannot be made or started.
    pub fn run(&self, paths: &Paths, plan: &Plan) -> Result<Outcome> {
        let bundle = self.folder.join("bundle.cpio");
        bundle::write(&bundle, &Plan::manifest(), &plan.members(paths, &self.folder)?)?;
        let (engine, boot) = match plan.platform {
            Platform::Qemu => {
                let (kernel, initrd) = (self.image.clone(), Some(bundle));
                let boot = Boot::Kernel { kernel, initrd, command_line: String::new() };
                (Engine::Qemu(Accelerator::Tcg), boot)
            }
            Platform::Bochs => {
                let file = self.folder.join("machine.iso");
                iso::make(&file, &self.image, &bundle, "")?;
                (Engine::Bochs, Boot::Iso(file))
            }
        };
        let log = self.folder.join("log");
        let config = MachineConfig {
            engine,
            cpu: plan.cpu.clone(),
            cpus: CPUS,
            memory_mib: MEMORY_MIB,
            deterministic: false,
            boot,
            log: Some(log.clone()),
        };
        let errors = self.folder.join("errors");
        let begin = Instant::now();
        let status = wait(&config, plan, File::create(&errors)?)?;
        let run = Run {
            status,
            seconds: begin.elapsed().as_secs_f64(),
            log: String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned(),
            errors: fs::read(&errors).unwrap_or_default(),
            log_file: log,
        };
        Outcome::judge(plan, &run)
    }
}

/// Starts the machine, tells it when time is up, and waits for its end; `None` if it hangs.
fn wait(config: &MachineConfig, plan: &Plan, errors: File) -> Result<Option<ExitStatus>> {
    let patience = if config.engine == Engine::Bochs { SLOW_PATIENCE } else { PATIENCE };
    let mut command = config.command()?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
    let mut child = OwnedChild::spawn(&mut command)?;
    let mut input = child.inner().stdin.take();
    let _progress = Progress::start(&format!("torturing {}", config.engine.name()));
    let begin = Instant::now();
    let (mut length, mut grew) = (0, begin);
    loop {
        if let Some(status) = child.wait_until(Instant::now() + LOOK)? {
            return Ok(Some(status));
        }
        let is_up = matches!(plan.limit, Limit::Time(time) if begin.elapsed() >= time);
        if let Some(mut input) = input.take_if(|_| is_up) {
            // A machine that has just ended reads no more.
            let _ = input.write_all(&[STOP_BYTE]).and_then(|()| input.flush());
        }
        let now =
            config.log.as_ref().and_then(|log| fs::metadata(log).ok()).map_or(0, |log| log.len());
        if now != length {
            (length, grew) = (now, Instant::now());
        }
        if grew.elapsed() >= patience {
            return Ok(None);
        }
    }
}
