// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the guest in the scenarios.
//!
//! Under Alcazar each span has a VM of its own, and another VM does all the same but for a span of
//! a single tick: what the one has more exits than the other are exits in the span, which the run
//! report thus gives without asking the guest.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wire::{
    FORMAT_VERSION, GuestConsole, Manifest, Paging, RunReport, Stage, VmDescription, VmReport,
};

use super::figures::Figures;
use super::parse::{self, Span};
use super::scenario::Scenario;
use crate::bench::peer::{self, Setting};
use crate::bench::place::{self, Job, Place};
use crate::paths::Paths;
use crate::platform::bochs::models::Model;
use crate::progress::Progress;
use crate::run::folder::RunFolder;

/// Memory of a guest, in MiB.
const MEMORY_MIB: u64 = 32;

/// What Linux has to do when it is busy.
const LOADS: &[&str] = &["compute", "memory", "fork"];

/// The VM that is measured, and its neighbour.
const MEASURED: &str = "measured";
const NEIGHBOUR: &str = "neighbour";

/// Ticks that a guest takes from its first entry until it is busy: it starts and compares its
/// clocks. One that is to sample warms up thereafter, so that it begins later.
const SETTLING: u64 = 7_000_000;

/// By time the CPUs of the machine are threads, which may wait for each other's host CPU: the
/// neighbour is busy for this part of a second before and after.
const WALL_MARGIN: u64 = 10;

/// Timer interrupts of a neighbour in a second.
const NEIGHBOUR_HZ: u64 = 500;

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// CPU model of the machine of two CPUs that Bochs emulates.
    pub model: &'a Model,
    /// Time for which the guest samples, in milliseconds of the machine.
    pub span_ms: u64,
    /// Distances above are detours, in ticks of the time-stamp counter.
    pub threshold: u64,
    /// The guest's timer interrupts in a second.
    pub tick_hz: u64,
    /// Frequency of the time-stamp counter if that counts time, and not instructions: then all
    /// machines are QEMU's.
    pub wall_hz: Option<u64>,
}

/// Exits by reason.
pub type Exits = BTreeMap<String, u64>;

/// One span in one scenario.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sample {
    /// Which.
    pub scenario: Scenario,
    /// Frequency of its time-stamp counter.
    pub tsc_hz: u64,
    /// What the detours amount to.
    pub figures: Figures,
    /// What the guest's VMM counts as its exits in the span; nothing where there is no Alcazar.
    pub exits: Option<Exits>,
    /// The same of a neighbour in its whole life.
    pub neighbour_exits: Option<u64>,
    /// What the guest says.
    pub span: Span,
}

impl Settings<'_> {
    /// Frequency of the time-stamp counter in a scenario.
    pub fn tsc_hz(self, scenario: Scenario) -> u64 {
        self.wall_hz.unwrap_or_else(|| scenario.tsc_hz())
    }

    /// Whether a scenario runs on Bochs.
    fn is_bochs(self, scenario: Scenario) -> bool {
        scenario.has_two_cpus() && self.wall_hz.is_none()
    }

    /// How long to sample in each VM under Alcazar that has one kind of tick. By time the same
    /// exits are not counted again.
    fn spans(self, tsc_hz: u64) -> Vec<u64> {
        let span = self.span(tsc_hz);
        if self.wall_hz.is_some() { vec![span] } else { vec![1, span] }
    }

    fn job<'a>(self, guest: &'a Path, words: &'a str, cpus: u32) -> Job<'a> {
        let deterministic = self.wall_hz.is_none();
        Job { guest, words, memory_mib: MEMORY_MIB, cpus, deterministic }
    }

    fn span(self, tsc_hz: u64) -> u64 {
        self.span_ms * (tsc_hz / 1000)
    }

    /// Words for a guest that samples so long, once for each kind of tick.
    fn words(self, span: u64, ticks: &[String]) -> String {
        let mut words = format!("span={span} threshold={}", self.threshold);
        for tick in ticks {
            words.push_str(&format!(" tick={tick}"));
        }
        words
    }

    /// Without and with a tick.
    fn ticks(self, tsc_hz: u64) -> [String; 2] {
        ["off".to_owned(), (tsc_hz / self.tick_hz).to_string()]
    }
}

/// Measures in a scenario, without and with the guest's tick.
///
/// # Errors
/// When the guest does not get through, or the neighbour was not busy all the time.
pub fn run(
    paths: &Paths,
    guest: &Path,
    scenario: Scenario,
    settings: Settings<'_>,
) -> Result<Vec<Sample>> {
    // A place of its own says so itself.
    let is_place = scenario == Scenario::Bare;
    let _progress =
        (!is_place).then(|| Progress::start(&format!("measuring: {}", scenario.title())));
    let folder = RunFolder::create(paths)?;
    let hz = settings.tsc_hz(scenario);
    let words = settings.words(settings.span(hz), &settings.ticks(hz));
    // By time it is the same machine for all.
    let cpus = if scenario.has_two_cpus() || settings.wall_hz.is_some() { 2 } else { 1 };
    let outcome = if is_place {
        Place::Bare.run(paths, settings.job(guest, &words, cpus))
    } else if scenario.is_kvm() {
        let loads = if scenario.is_busy() { LOADS } else { &[] };
        let apart = scenario.has_two_cpus();
        let bochs = settings.is_bochs(scenario).then_some(settings.model);
        let setting = Setting { nested: true, loads, apart, bochs, ..Setting::default() };
        peer::run(paths, settings.job(guest, &words, 1), setting, &folder)
    } else {
        let manifest = manifest(guest, scenario, settings);
        let job = settings.job(guest, "", cpus);
        if settings.is_bochs(scenario) {
            place::on_bochs(paths, job, settings.model.name, &manifest, &folder)
        } else {
            place::under_alcazar(paths, job, &manifest, &folder)
        }
    };
    let outcome = outcome.with_context(|| format!("{} failed", scenario.title()))?;
    let spans = parse::spans(&outcome.console)?;
    let samples = match &outcome.report {
        None => spans.into_iter().map(|span| sample(scenario, settings, span)).collect(),
        Some(report) => with_exits(scenario, settings, spans, report)?,
    };
    ensure!(samples.len() == 2, "{}: {} spans, expected 2", scenario.title(), samples.len());
    Ok(samples)
}

/// For each kind of tick a VM that samples for a single tick, if exits are to be counted, and one
/// that samples in earnest.
fn manifest(guest: &Path, scenario: Scenario, settings: Settings<'_>) -> Manifest {
    let hz = settings.tsc_hz(scenario);
    let mut stages = Vec::new();
    for tick in settings.ticks(hz) {
        for span in settings.spans(hz) {
            let words = settings.words(span, std::slice::from_ref(&tick));
            let mut vms = Vec::new();
            if scenario == Scenario::Neighbour {
                // It starts first and ends last.
                let margin = settings.wall_hz.map_or(SETTLING, |hz| hz / WALL_MARGIN);
                let words = format!("busy={} tick={}", span + 2 * margin, hz / NEIGHBOUR_HZ);
                let neighbour = vm(settings.job(guest, &words, 1), NEIGHBOUR);
                vms.push(VmDescription { console: GuestConsole::Log, ..neighbour });
            }
            vms.push(vm(settings.job(guest, &words, 1), MEASURED));
            stages.push(Stage { vms, repeat: 1 });
        }
    }
    Manifest { version: FORMAT_VERSION, stages }
}

fn vm(job: Job<'_>, name: &str) -> VmDescription {
    VmDescription { name: name.into(), ..place::vm(job, Paging::Nested) }
}

fn sample(scenario: Scenario, settings: Settings<'_>, span: Span) -> Sample {
    let tsc_hz = settings.tsc_hz(scenario);
    let figures = Figures::new(&span, tsc_hz);
    Sample { scenario, tsc_hz, figures, exits: None, neighbour_exits: None, span }
}

/// Puts together what the guests said and what the report counts, both in the order of the
/// manifest.
fn with_exits(
    scenario: Scenario,
    settings: Settings<'_>,
    spans: Vec<Span>,
    report: &RunReport,
) -> Result<Vec<Sample>> {
    let of = |name: &str| report.vms.iter().filter(|vm| vm.name == name).collect::<Vec<_>>();
    let (measured, neighbours) = (of(MEASURED), of(NEIGHBOUR));
    let vms = settings.spans(settings.tsc_hz(scenario)).len();
    ensure!(
        spans.len() == measured.len() && spans.len().is_multiple_of(vms),
        "{} spans of {} VMs",
        spans.len(),
        measured.len()
    );
    let mut samples = Vec::new();
    for (index, span) in spans.into_iter().enumerate().skip(vms - 1).step_by(vms) {
        let mut sample = sample(scenario, settings, span);
        if let Some(neighbour) = neighbours.get(index) {
            overlap(measured[index], neighbour, sample.span.length)?;
            sample.neighbour_exits = Some(exits(neighbour).values().sum());
        }
        if vms > 1 {
            sample.exits = Some(more(&exits(measured[index]), &exits(measured[index - 1])));
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// Exits of a VM, but for the port I/O by which its guest prints and ends.
fn exits(vm: &VmReport) -> Exits {
    let mut exits = Exits::new();
    for exit in vm.vcpus.iter().flat_map(|vcpu| &vcpu.exits) {
        if exit.reason != "port_io" {
            *exits.entry(exit.reason.clone()).or_default() += exit.count;
        }
    }
    exits
}

/// What `exits` has more than `nothing`.
fn more(exits: &Exits, nothing: &Exits) -> Exits {
    let less = |reason: &str| nothing.get(reason).copied().unwrap_or_default();
    let more = exits.iter().map(|(reason, count)| (reason, count.saturating_sub(less(reason))));
    more.filter(|&(_, count)| count > 0).map(|(reason, count)| (reason.clone(), count)).collect()
}

/// Checks that the neighbour was busy all the while: both print as soon as they are done, and a
/// span ends where its guest begins to print.
fn overlap(measured: &VmReport, neighbour: &VmReport, span: u64) -> Result<()> {
    let at = |vm: &VmReport, name: &str| {
        let found = vm.milestones.iter().find(|milestone| milestone.name == name);
        found.map(|found| found.tsc).with_context(|| format!("{}: no milestone {name}", vm.name))
    };
    let end = at(measured, "console_first_byte")?;
    ensure!(
        at(neighbour, "first_entry")? + SETTLING <= end.saturating_sub(span)
            && end <= at(neighbour, "console_first_byte")?,
        "the neighbour was not busy all the time"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::bochs::models;
    use crate::regress::sample as reports;

    fn settings(wall_hz: Option<u64>) -> Settings<'static> {
        let model = models::find(models::DEFAULT).unwrap();
        Settings { model, span_ms: 100, threshold: 50, tick_hz: 100, wall_hz }
    }

    fn span(tick: Option<u64>, length: u64) -> Span {
        Span { tick, length, samples: 1, shortest: 1, timer_ticks: 0, detours: Vec::new() }
    }

    /// A VM that was entered at tick 0 and began to print at this one.
    fn vm(name: &str, first_byte: u64, exits: &[(&str, u64)]) -> VmReport {
        let mut vm = reports::report("svm").vms.remove(0);
        vm.name = name.into();
        vm.vcpus[0].exits =
            exits.iter().map(|&(reason, count)| reports::exits(reason, count, 0)).collect();
        let milestone =
            |name: &str, tsc| wire::Milestone { name: name.into(), tsc, microseconds: 0 };
        vm.milestones =
            vec![milestone("first_entry", 0), milestone("console_first_byte", first_byte)];
        vm
    }

    /// A run without and with a tick; the neighbour ends at this tick.
    fn report(neighbour_end: u64) -> RunReport {
        let mut report = reports::report("svm");
        let fixed = ("write_msr", 5);
        let quiet = [fixed, ("port_io", 99)];
        let ticking = [("write_msr", 15), ("host_interrupt", 10)];
        report.vms.clear();
        for exits in [&[fixed][..], &quiet, &[fixed], &ticking] {
            report.vms.push(vm(NEIGHBOUR, neighbour_end, &[("cpuid", 7), ("halt", 1)]));
            report.vms.push(vm(MEASURED, 20_000_000, exits));
        }
        report
    }

    fn spans() -> Vec<Span> {
        [(None, 1), (None, 5_000_000), (Some(500_000), 1), (Some(500_000), 5_000_000)]
            .map(|(tick, length)| span(tick, length))
            .to_vec()
    }

    #[test]
    fn exits_in_the_span_are_those_that_a_vm_without_a_span_does_not_have() {
        let samples =
            with_exits(Scenario::Neighbour, settings(None), spans(), &report(20_000_000)).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].exits, Some(Exits::new()));
        let expected = [("host_interrupt", 10), ("write_msr", 10)];
        let expected = expected.map(|(reason, count)| (reason.to_owned(), count));
        assert_eq!(samples[1].exits, Some(expected.into()));
        assert_eq!(samples[1].neighbour_exits, Some(8));
        assert_eq!(samples[1].span.tick, Some(500_000));
    }

    #[test]
    fn a_neighbour_that_ends_early_spoils_the_measurement() {
        let with =
            |spans, end| with_exits(Scenario::Neighbour, settings(None), spans, &report(end));
        let error = with(spans(), 19_999_999).unwrap_err();
        assert!(error.to_string().contains("not busy all the time"), "{error}");
        assert!(with(spans()[1..].to_vec(), 0).is_err());
    }

    #[test]
    fn each_kind_of_tick_is_run_with_and_without_a_span() {
        let manifest = manifest(Path::new("guest"), Scenario::Neighbour, settings(None));
        manifest.validate().unwrap();
        let words = command_lines(&manifest);
        let [neighbour, measured] = &words[2..4] else { panic!("{words:?}") };
        assert_eq!(neighbour, "busy=19000000 tick=100000");
        assert_eq!(measured, "span=5000000 threshold=50 tick=off");
        assert_eq!(words[5], "span=1 threshold=50 tick=500000");
        let alone = super::manifest(Path::new("guest"), Scenario::Alcazar, settings(None));
        assert_eq!(command_lines(&alone)[3], "span=100000000 threshold=50 tick=10000000");
    }

    #[test]
    fn by_time_exits_are_not_counted_and_neighbours_have_a_margin() {
        let settings = settings(Some(2_000_000_000));
        let manifest = manifest(Path::new("guest"), Scenario::Neighbour, settings);
        manifest.validate().unwrap();
        let words = command_lines(&manifest);
        assert_eq!(words.len(), 4, "{words:?}");
        assert_eq!(words[0], "busy=600000000 tick=4000000");
        assert_eq!(words[3], "span=200000000 threshold=50 tick=20000000");
        let spans = vec![span(None, 5_000_000), span(Some(500_000), 5_000_000)];
        let mut report = report(20_000_000);
        report.vms.truncate(4);
        let samples = with_exits(Scenario::Neighbour, settings, spans, &report).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].exits.as_ref(), samples[0].neighbour_exits), (None, Some(8)));
        assert_eq!(samples[0].tsc_hz, 2_000_000_000);
    }

    fn command_lines(manifest: &Manifest) -> Vec<String> {
        let vms = manifest.stages.iter().flat_map(|stage| &stage.vms);
        vms.map(|vm| vm.command_line.clone()).collect()
    }
}
