// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VM service: runs what the manifest lists and accounts for it.

use alloc::{format, string::String, string::ToString, sync::Arc, vec::Vec};

use cokernel::memory;
use host_iface::Host;
use vmm_core::backend::Backend;
use wire::{
    Bundle, End, EndKind, FORMAT_VERSION, HostMemory, Paging, RunReport, Stage, VmDescription,
    VmReport,
};

use crate::{host::COKERNEL, report, round, torture, vm::GuestVm};

/// Runs all stages of the bundle's manifest, one after the other.
pub fn run<B: Backend>(backend: B, bundle: &Bundle<'_>) -> RunReport {
    vmm_core::emulate::prepare();
    let machine = report::machine::<B>(&backend);
    let backend = Arc::new(backend);
    let mut vms = Vec::new();
    let before = memory_in_use(&vms);
    for stage in &bundle.manifest().stages {
        let reports = run_stage(&backend, bundle, stage);
        vms.extend(reports);
    }
    if let Some(torture) = bundle.torture() {
        vms.extend(torture::run(&backend, bundle, torture));
    }
    // A copy holds exactly what it needs, so that its size can be told.
    vms = vms.clone();
    let after = memory_in_use(&vms);
    if before != after {
        log::error!("memory is missing after the last VM: {before:?}, now {after:?}");
    }
    RunReport { version: FORMAT_VERSION, machine, vms, before, after }
}

/// Memory in use but for `reports`, whose size is that of another copy.
pub fn memory_in_use(reports: &[VmReport]) -> HostMemory {
    let with_reports = memory::heap_bytes();
    let copy = reports.to_vec();
    let size = memory::heap_bytes() - with_reports;
    drop(copy);
    let usage = memory::usage();
    HostMemory {
        free_frames: usage.free_frames + usage.heap_frames,
        heap_bytes: with_reports - size,
    }
}

/// Runs a stage as often as it says; the last round's reports count.
fn run_stage<B: Backend>(backend: &Arc<B>, bundle: &Bundle<'_>, stage: &Stage) -> Vec<VmReport> {
    let mut reports = Vec::new();
    for number in 1..=stage.repeat {
        drop(reports);
        reports = run_round(backend, bundle, stage);
        for report in &mut reports {
            report.rounds = number;
        }
        if reports.iter().any(|report| report.end.kind == EndKind::Error) {
            break;
        }
    }
    reports
}

fn run_round<B: Backend>(backend: &Arc<B>, bundle: &Bundle<'_>, stage: &Stage) -> Vec<VmReport> {
    match create_all(backend, bundle, stage) {
        Ok(mut vms) => match round::run(backend, &mut vms) {
            Ok(mut finished) => report::round(stage, &vms, &mut finished),
            Err(why) => failed(&**backend, stage, &why),
        },
        Err(why) => failed(&**backend, stage, &why),
    }
}

fn create_all<B: Backend>(
    backend: &Arc<B>,
    bundle: &Bundle<'_>,
    stage: &Stage,
) -> Result<Vec<GuestVm<B>>, String> {
    let create = |description| {
        GuestVm::create(&**backend, bundle, description)
            .map_err(|why| format!("VM '{}': {why}", description.name))
    };
    stage.vms.iter().map(create).collect()
}

/// Reports for a round that could not be run.
fn failed<B: Backend>(backend: &B, stage: &Stage, why: &str) -> Vec<VmReport> {
    log::error!("{why}");
    let end = End { kind: EndKind::Error, detail: why.to_string(), exit_code: None };
    let vm = |description: &VmDescription| {
        let default = if backend.has_nested_paging() { Paging::Nested } else { Paging::Shadow };
        report::not_run(description, description.paging.unwrap_or(default), end.clone())
    };
    stage.vms.iter().map(vm).collect()
}

/// The time-stamp counter since the co-kernel was entered.
pub fn since_entry(tsc: u64) -> u64 {
    tsc.saturating_sub(cokernel::time::entry_tsc()).min(COKERNEL.tsc().0)
}
