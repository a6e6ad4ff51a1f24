// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much longer a Linux guest takes to boot under Alcazar than on the bare machine.
//!
//! Both run on the same emulated machine with `-icount shift=0`: the time-stamp counter then
//! advances by one with each instruction executed (and over the time a halted CPU waits), so the
//! figures do not depend on the host. They still differ by about a tenth of a percent from run
//! to run, since the guest sees another date and other random numbers. Measured is the way from the kernel's entry to the first instruction
//! of `/init`, which prints a marker as the first thing on the console:
//!
//! - bare: the counter as `/init` reads it, less the counter at the kernel's entry, which
//!   [`super::probe`] finds (what lies before is firmware, and none of the kernel's business);
//! - under Alcazar: from the first entry into the guest to the first byte on its console, both by
//!   the host's counter as the run report has them. This includes everything the VMM does.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use serde::Serialize;
use wire::VmReport;

use super::probe;
use super::results::{Output, grouped};
use crate::paths::Paths;
use crate::run::folder::RunFolder;
use crate::run::options::RunOptions;
use crate::run::outcome::{Finished, Status};
use crate::run::plan::Plan;
use crate::run::start;

/// Compares the boot of the default guest to /init, in instructions: on the bare emulated machine
/// and on the same machine under Alcazar.
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
}

/// The figures, in instructions.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Figures {
    /// From kernel entry to `/init` on the bare machine.
    bare: u64,
    /// The same under Alcazar.
    alcazar: u64,
    /// `alcazar` by `bare`.
    ratio: f64,
    /// Firmware before the kernel's entry on the bare machine; not part of `bare`.
    bare_firmware: u64,
    /// From the co-kernel's entry to that of the guest; not part of `alcazar`.
    alcazar_start: u64,
    /// Exits of the guest in the whole run.
    exits: u64,
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: RunOptions,
}

/// Measures and prints.
///
/// # Errors
/// When a guest does not boot or does not say what is needed.
pub fn run(paths: &Paths, options: &BootOptions) -> Result<()> {
    let figures = measure(paths, options)?;
    println!("kernel entry to /init, in instructions:");
    println!("  bare machine   {:>14}", figures.bare);
    println!("  under Alcazar  {:>14}   ratio {:.3}", figures.alcazar, figures.ratio);
    println!("  exits          {:>14}", figures.exits);
    println!(
        "not counted: {} of firmware on the bare machine, {} of the co-kernel",
        figures.bare_firmware, figures.alcazar_start
    );
    options.output.figures(paths, "boot", &figures)?;
    options.output.table(paths, "boot", &markdown(&figures))
}

fn markdown(figures: &Figures) -> String {
    format!(
        "| | instructions |\n|---|---:|\n| bare machine | {} |\n| under Alcazar | {} |\n\
         | **ratio** | **{:.3}** |\n",
        grouped(figures.bare),
        grouped(figures.alcazar),
        figures.ratio
    )
}

fn measure(paths: &Paths, options: &BootOptions) -> Result<Figures> {
    let bare = boot(paths, options, true)?;
    let at_init = bare.0.console.init_tsc.context("the bare guest did not say when it was up")?;
    let at_entry = probe::kernel_entry(&bare.1)?;
    let bare_ticks = at_init.checked_sub(at_entry).context("/init came before the kernel")?;

    let (alcazar, _) = boot(paths, options, false)?;
    ensure!(
        alcazar.console.init_was_first,
        "the kernel printed something before /init was reached; see {}",
        alcazar.log.display()
    );
    let report = alcazar.report.context("there is no run report")?;
    let vm = report.vms.first().context("the run report has no VM")?;
    let (entry, init) = (milestone(vm, "first_entry")?, milestone(vm, "console_first_byte")?);
    let ticks = init.checked_sub(entry).context("the milestones are out of order")?;
    Ok(Figures {
        bare: bare_ticks,
        alcazar: ticks,
        ratio: ticks as f64 / bare_ticks as f64,
        bare_firmware: at_entry,
        alcazar_start: entry,
        exits: vm.vcpus.iter().flat_map(|vcpu| &vcpu.exits).map(|exit| exit.count).sum(),
    })
}

fn milestone(vm: &VmReport, name: &str) -> Result<u64> {
    let found = vm.milestones.iter().find(|milestone| milestone.name == name);
    Ok(found.with_context(|| format!("the run report has no milestone '{name}'"))?.tsc)
}

/// Boots the guest as `run` does.
fn boot(paths: &Paths, options: &BootOptions, bare: bool) -> Result<(Finished, Plan)> {
    let memory = options.mem.to_string();
    // A kernel at a random address takes a different number of instructions each time.
    let append = format!("nokaslr {}", options.append);
    let mut line = vec!["run", "--icount", "--json", "--exec", "true", "--timeout", "300"];
    line.extend(["--mem", &memory, "--append", &append]);
    line.extend(bare.then_some("--bare"));
    let run_options = Line::try_parse_from(line)?.options;
    run_options.check()?;
    let folder = RunFolder::create(paths)?;
    let plan = Plan::make(paths, &run_options, &folder)?;
    plan.announce();
    let finished = start::start(&plan, &run_options, &folder)?;
    match &finished.status {
        Status::Exited(0) => Ok((finished, plan)),
        Status::Failed(why) => bail!("{why}; see {}", finished.log.display()),
        _ => bail!("the guest did not get through; see {}", finished.log.display()),
    }
}
