// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rounds of a VM that does its worst, beside one that must not notice.

mod canaries;
#[cfg(feature = "fault-injection")]
mod damage;
mod tally;
mod watch;

use alloc::{format, string::String, sync::Arc, vec, vec::Vec};

use host_iface::Host;
use vmm_core::backend::Backend;
use wire::{
    Bundle, End, EndKind, NEIGHBOUR_END_BYTE, ROUND_PREFIX, STOP_BYTE, Stage, TORTURE_PREFIX,
    Torture, VmDescription, VmReport,
};

use self::{tally::Tally, watch::Watch};
use crate::{
    host::COKERNEL,
    report,
    round::{self, Running},
    vm::GuestVm,
};

/// Runs `torture`, writes its report to the log, and gives the reports of the VMs of the last
/// round and of the neighbour.
pub fn run<B: Backend>(backend: &Arc<B>, bundle: &Bundle<'_>, torture: &Torture) -> Vec<VmReport> {
    let mut tally = Tally::default();
    let mut reports = Vec::new();
    if let Err(why) = run_all(backend, bundle, torture, &mut tally, &mut reports) {
        tally.fault(why);
    }
    match serde_json::to_string(&tally.report()) {
        Ok(json) => cokernel::write_line(&format!("{TORTURE_PREFIX}{json}")),
        Err(error) => log::error!("the report of the torture could not be written: {error}"),
    }
    reports
}

/// Starts the neighbour, runs the rounds, and ends the neighbour.
fn run_all<B: Backend>(
    backend: &Arc<B>,
    bundle: &Bundle<'_>,
    torture: &Torture,
    tally: &mut Tally,
    reports: &mut Vec<VmReport>,
) -> Result<(), String> {
    refuse_damage(torture)?;
    let beside = torture.neighbour.clone();
    let neighbours = Stage { vms: beside.into_iter().collect(), repeat: 1 };
    let mut guests = create(&**backend, bundle, &neighbours)?;
    let neighbour = round::start(backend, &mut guests, &[])?;
    let result = rounds(backend, bundle, torture, &neighbour, tally, reports);
    for guest in &guests {
        guest.console.send(NEIGHBOUR_END_BYTE);
        guest.doorbell.ring();
    }
    let mut finished = neighbour.wait(&guests);
    reports.extend(report::round(&neighbours.vms, &guests, &mut finished));
    result
}

/// Runs rounds until there were enough, somebody stops them, or something is not as it should be.
fn rounds<B: Backend>(
    backend: &Arc<B>,
    bundle: &Bundle<'_>,
    torture: &Torture,
    neighbour: &Running<B>,
    tally: &mut Tally,
    last: &mut Vec<VmReport>,
) -> Result<(), String> {
    let most = torture.rounds.unwrap_or(u64::MAX);
    let mut watch = begin_to_watch(&**backend, bundle, torture)?;
    tally.watched(watch.bytes());
    for number in 0..most {
        let seed = torture.first_seed.wrapping_add(number);
        cokernel::write_line(&format!("{ROUND_PREFIX}{seed}"));
        tally.begin(seed);
        let stage = Stage { vms: vec![seeded(&torture.vm, seed)], repeat: 1 };
        let mut guests = create(&**backend, bundle, &stage)?;
        let running = round::start(backend, &mut guests, neighbour.cpus())?;
        let mut finished = running.wait(&guests);
        *last = report::round(&stage.vms, &guests, &mut finished);
        drop((finished, guests));
        tally.end(last, &torture.tolerated);
        do_damage(&watch, torture, number);
        let is_last = number + 1 == most || is_stopped();
        let result = if is_last { watch.check_all() } else { watch.check() };
        tally.checks(watch.checks());
        result?;
        if neighbour.is_over() && torture.neighbour.is_some() {
            return Err("the neighbour ended before it was told to".into());
        }
        if is_last || tally.is_full() {
            break;
        }
    }
    Ok(())
}

fn create<B: Backend>(
    backend: &B,
    bundle: &Bundle<'_>,
    stage: &Stage,
) -> Result<Vec<GuestVm<B>>, String> {
    let create = |description| {
        GuestVm::create(backend, bundle, 0, description)
            .map_err(|why| format!("VM '{}': {why}", description.name))
    };
    stage.vms.iter().map(create).collect()
}

/// Begins to watch the memory around that of a VM like those of the rounds. Their time counts from
/// when they are made, so none of them waits for this.
fn begin_to_watch<B: Backend>(
    backend: &B,
    bundle: &Bundle<'_>,
    torture: &Torture,
) -> Result<Watch, String> {
    let stage = Stage { vms: vec![seeded(&torture.vm, torture.first_seed)], repeat: 1 };
    let guests = create(backend, bundle, &stage)?;
    let watch = Watch::begin(torture.watched_mib.saturating_mul(1 << 20));
    drop(guests);
    Ok(watch)
}

/// The VM of the round with this seed.
fn seeded(vm: &VmDescription, seed: u64) -> VmDescription {
    let command_line = format!("{} seed={seed}", vm.command_line);
    VmDescription { command_line: command_line.trim().into(), ..vm.clone() }
}

/// Whether the order to stop has arrived.
fn is_stopped() -> bool {
    let mut bytes = [0; 16];
    let Some(console) = COKERNEL.console(0) else { return false };
    let count = console.read(&mut bytes);
    bytes.iter().take(count).any(|&byte| byte == STOP_BYTE)
}

/// Whether a VM must not end like this: the CPU refused what the VMM made of the guest's state, or
/// the VMM found itself in a state that should not be.
fn is_fault(end: &End, tolerated: &[String]) -> bool {
    match end.kind {
        EndKind::EntryFailure => !tolerated.iter().any(|text| end.detail.contains(text.as_str())),
        EndKind::Error => true,
        _ => false,
    }
}

#[cfg(feature = "fault-injection")]
fn do_damage(watch: &Watch, torture: &Torture, number: u64) {
    if let Some(damage) = torture.damage.filter(|_| number == 0) {
        watch.damage(damage);
    }
}

#[cfg(not(feature = "fault-injection"))]
fn do_damage(_: &Watch, _: &Torture, _: u64) {}

#[cfg(feature = "fault-injection")]
fn refuse_damage(_: &Torture) -> Result<(), String> {
    Ok(())
}

/// This image is made for work.
#[cfg(not(feature = "fault-injection"))]
fn refuse_damage(torture: &Torture) -> Result<(), String> {
    match torture.damage {
        Some(_) => Err("damage needs an image with the feature 'fault-injection'".into()),
        None => Ok(()),
    }
}
