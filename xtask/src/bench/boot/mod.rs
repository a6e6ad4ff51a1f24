// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a Linux guest takes to boot: on the bare machine, under Alcazar and under Linux KVM.
//!
//! All run on the same emulated machine with `-icount shift=0`: the time-stamp counter then
//! advances by one with each instruction executed (and over the time a halted CPU waits), so the
//! figures do not depend on the host. They still differ by about a tenth of a percent from run
//! to run, since the guest sees another date and other random numbers. Measured is the way from
//! the kernel's entry to the first instruction of `/init`, which prints a marker as the first thing
//! on the console:
//!
//! - bare: the counter as `/init` reads it, less the counter at the kernel's entry, which
//!   [`super::probe`] finds (what lies before is firmware, and none of the kernel's business);
//! - under Alcazar: from the first entry into the guest to the first byte on its console, both by
//!   the host's counter as the run report has them;
//! - under KVM: the counter as `/init` reads it, less the same counter just before the vCPU starts.
//!
//! This includes everything that a VMM does meanwhile. `/init` also says where its kernel's own
//! clock is.

mod peer;
mod table;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use serde::Serialize;
use wire::VmReport;

use super::place::Place;
use super::probe;
use super::results::Output;
use crate::paths::Paths;
use crate::run::folder::RunFolder;
use crate::run::options::RunOptions;
use crate::run::outcome::{Finished, Status};
use crate::run::plan::Plan;
use crate::run::start;

/// Boot of the Debian kernel to /init
///
/// On the bare emulated machine and, on the same machine, under Alcazar and under Linux KVM, in
/// instructions, by -icount.
#[derive(Clone, Debug, Args)]
pub struct BootOptions {
    #[command(flatten)]
    pub output: Output,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    mem: u64,
    /// Added to the end of the kernel command line
    #[arg(long, value_name = "STRING", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Where to boot, separated by commas; the bare machine always
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [Place::Bare, Place::Alcazar, Place::Kvm])]
    places: Vec<Place>,
}

/// A boot at one place, in instructions unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Boot {
    /// From the kernel's entry to `/init`.
    pub ticks: u64,
    /// The guest kernel's own clock at `/init`, in nanoseconds.
    pub clock: u64,
    /// From the beginning of the VM's creation to the first entry into the guest.
    pub creation: Option<u64>,
    /// From the entry of the VMM's own kernel to its being ready to run VMs.
    pub ready: Option<u64>,
    /// Exits of the guest in the whole run.
    pub exits: Option<u64>,
}

/// All figures.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figures {
    unit: &'static str,
    /// By place.
    pub boots: BTreeMap<Place, Boot>,
    /// Firmware before the kernel's entry on the bare machine; not part of its figures.
    pub bare_firmware: u64,
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: RunOptions,
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When a guest does not boot or does not say what is needed.
pub fn run(paths: &Paths, options: &BootOptions) -> Result<()> {
    let figures = measure(paths, options)?;
    print!("{}", table::text(&figures));
    options.output.figures(paths, "boot", &figures)?;
    options.output.plot(paths, "boot", &table::svg(&figures)?)?;
    options.output.table(paths, "boot", &table::markdown(&figures))
}

fn measure(paths: &Paths, options: &BootOptions) -> Result<Figures> {
    let (bare, bare_firmware) = bare(paths, options)?;
    let mut boots = BTreeMap::from([(Place::Bare, bare)]);
    for &place in options.places.iter().filter(|&&place| place != Place::Bare) {
        let boot = match place {
            Place::Bare => bare,
            Place::Alcazar => alcazar(paths, options, "nested")?,
            Place::AlcazarShadow => alcazar(paths, options, "shadow")?,
            Place::Kvm => peer::boot(paths, options, true)?,
            Place::KvmShadow => peer::boot(paths, options, false)?,
        };
        boots.insert(place, boot);
    }
    Ok(Figures { unit: "instructions", boots, bare_firmware })
}

/// The boot, and what the firmware takes before it.
fn bare(paths: &Paths, options: &BootOptions) -> Result<(Boot, u64)> {
    let prepared = Prepared::new(paths, options, "true", &["--bare"])?;
    let finished = prepared.run()?;
    let at_init = finished.console.init_tsc.context("the guest did not say when it was up")?;
    let at_entry = probe::kernel_entry(&prepared.plan)?;
    let ticks = at_init.checked_sub(at_entry).context("/init came before the kernel")?;
    Ok((Boot { ticks, clock: clock(&finished)?, ..Boot::default() }, at_entry))
}

fn alcazar(paths: &Paths, options: &BootOptions, paging: &str) -> Result<Boot> {
    let finished = Prepared::new(paths, options, "true", &["--paging", paging])?.run()?;
    ensure!(
        finished.console.init_was_first,
        "the kernel printed something before /init was reached; see {}",
        finished.log.display()
    );
    let clock = clock(&finished)?;
    let report = finished.report.context("there is no run report")?;
    let vm = report.vms.first().context("the run report has no VM")?;
    let between = |from, to| {
        milestone(vm, to)?.checked_sub(milestone(vm, from)?).context("milestones are out of order")
    };
    Ok(Boot {
        ticks: between("first_entry", "console_first_byte")?,
        clock,
        creation: Some(between("creation", "first_entry")?),
        ready: Some(report.machine.boot_tsc),
        exits: Some(report.exits().map(|exit| exit.count).sum()),
    })
}

fn clock(finished: &Finished) -> Result<u64> {
    finished.console.init_clock.context("the guest did not say its clock")
}

fn milestone(vm: &VmReport, name: &str) -> Result<u64> {
    let found = vm.milestones.iter().find(|milestone| milestone.name == name);
    Ok(found.with_context(|| format!("the run report has no milestone '{name}'"))?.tsc)
}

/// A boot as `run` does it, before it is started.
struct Prepared {
    options: RunOptions,
    folder: RunFolder,
    plan: Plan,
}

impl Prepared {
    /// The default guest, which does `command` in the end, with more options of `run`.
    fn new(paths: &Paths, options: &BootOptions, command: &str, more: &[&str]) -> Result<Self> {
        let memory = options.mem.to_string();
        // A kernel at a random address takes a different number of instructions each time.
        let append = format!("nokaslr {}", options.append);
        let mut line = vec!["run", "--icount", "--json", "--timeout", "300"];
        line.extend(["--exec", command, "--mem", &memory, "--append", &append]);
        line.extend(more);
        let options = Line::try_parse_from(line)?.options;
        options.check()?;
        let folder = RunFolder::create(paths)?;
        let plan = Plan::make(paths, &options, &folder)?;
        Ok(Self { options, folder, plan })
    }

    fn run(&self) -> Result<Finished> {
        self.plan.announce();
        let finished = start::start(&self.plan, &self.options, &self.folder)?;
        match &finished.status {
            Status::Exited(0) => Ok(finished),
            Status::Failed(why) => bail!("{why}; see {}", finished.log.display()),
            _ => bail!("the guest did not get through; see {}", finished.log.display()),
        }
    }
}
