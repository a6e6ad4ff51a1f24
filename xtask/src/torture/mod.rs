// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask torture`: VMs that do their worst, one after the other, beside one that must not
//! notice.

mod machine;
mod outcome;
mod plan;
pub mod rows;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::paths::Paths;
use crate::platform::{Platform, bochs, qemu};
use crate::result_file::ResultFile;
use crate::run::options::Paging;
use crate::{cargo_build, setup};

use machine::{Limit, Machine};
use outcome::Outcome;
use plan::Plan;

/// Executes random instructions in VM after VM, in all modes, beside a VM that must not notice.
/// The co-kernel must live, and memory outside of the VMs stay as it was.
#[derive(Clone, Debug, Args)]
pub struct TortureOptions {
    /// Seed of the first round; each further round has the next number
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// How long rounds are begun
    #[arg(long, default_value_t = 5.0, value_name = "M")]
    pub minutes: f64,
    /// So many rounds instead; 1 repeats the one with this seed
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    pub rounds: Option<u64>,
    /// Machine to run the co-kernel on
    #[arg(long, value_enum, default_value_t = Platform::Qemu)]
    pub platform: Platform,
    /// CPU model, in the platform's own terms
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// How guest-physical addresses are translated [default: as the CPU can do it best]
    #[arg(long, value_enum)]
    pub paging: Option<Paging>,
    /// Write what was done and found to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Tortures; the exit status is 0 if nothing was found.
///
/// # Errors
/// When the machine cannot be had.
pub fn run(paths: &Paths, options: &TortureOptions) -> Result<u8> {
    let limit = match options.rounds {
        Some(rounds) => {
            ensure!(rounds > 0, "--rounds 0 leaves nothing to run: give at least 1");
            Limit::Rounds(rounds)
        }
        None => Limit::Time(time(options.minutes)?),
    };
    let cpu = match options.platform.bochs_model(options.cpu.as_deref())? {
        Some(model) => model.name.to_owned(),
        None => options.cpu.clone().unwrap_or_else(|| qemu::TCG_CPU.into()),
    };
    let json = options.json.as_deref().map(|path| ResultFile::prepare("--json", path));
    let json = json.transpose()?;
    setup::ensure_all(false)?;
    if options.platform == Platform::Bochs {
        setup::ensure_bochs()?;
        bochs::check()?;
    }
    let image = cargo_build::cokernel(paths)?;
    let plan = Plan::new(options.platform, &cpu, options.paging, options.seed, limit)?;
    let name = [options.platform.name(), &cpu, plan.paging_name()].join("-");
    let folder = paths.target.join("alcazar").join("torture").join(name);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let machine = Machine { image, folder };
    let outcome = torture(paths, &machine, plan)?;
    print!("{}", outcome.text());
    if let Some(file) = json {
        file.write_json(&outcome)?;
    }
    Ok(u8::from(!outcome.is_well()))
}

/// Tortures until the time is up; when the emulator dies, by another one from the next seed on.
fn torture(paths: &Paths, machine: &Machine, mut plan: Plan) -> Result<Outcome> {
    let begin = Instant::now();
    let whole = plan.limit;
    let mut outcome = machine.run(paths, &plan)?;
    while let (Limit::Time(time), Some(seed)) = (whole, outcome.next_seed()) {
        let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) else {
            break;
        };
        plan.torture.first_seed = seed;
        plan.limit = Limit::Time(left);
        outcome.add(machine.run(paths, &plan)?);
    }
    Ok(outcome)
}

fn time(minutes: f64) -> Result<Duration> {
    const MOST: f64 = 60.0 * 24.0 * 365.0;
    ensure!(
        minutes > 0.0 && minutes <= MOST,
        "--minutes {minutes} is not possible: give more than 0, and at most {MOST}"
    );
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_of_this_world() {
        assert_eq!(time(0.5).unwrap(), Duration::from_secs(30));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
