// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run report, from what the library counted.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use host_iface::Host;
use vmm_core::{
    EndReason,
    backend::Backend,
    scale,
    statistics::{ExitReason, Unclaimed, VcpuStatistics},
};
use wire::{
    Counter, End, EndKind, ExitCounter, GuestSize, Machine, Milestone, Paging, Stage, VcpuReport,
    VmDescription, VmMemory, VmReport,
};

use crate::{host::COKERNEL, interrupts, round::Finished, service::since_entry, vm::GuestVm};

/// The machine under the co-kernel.
pub fn machine<B: Backend>(backend: &B) -> Machine {
    let facts = cokernel::machine_facts();
    Machine {
        cpu: format!("{} {}", facts.cpu_vendor, facts.cpu_brand).trim().to_string(),
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        tsc_hz: facts.tsc_hz,
        backend: B::NAME.to_string(),
        capabilities: backend.capabilities(),
        image_bytes: facts.image_bytes,
        boot_tsc: facts.boot_ticks,
    }
}

/// Reports of the VMs of one round.
pub fn round<B: Backend>(
    stage: &Stage,
    vms: &[GuestVm<B>],
    finished: &mut [Finished<B>],
) -> Vec<VmReport> {
    let ended = COKERNEL.tsc().0;
    let vm = |(index, (description, guest)): (usize, (&VmDescription, &GuestVm<B>))| {
        let mut own: Vec<_> = finished.iter_mut().filter(|f| f.vm == index).collect();
        let first_entry = own.iter().filter_map(|f| f.vcpu.statistics().first_entry).min();
        let milestones = [
            ("creation", Some(guest.begun)),
            ("created", Some(guest.created)),
            ("first_entry", first_entry),
            ("console_first_byte", guest.console.first_byte()),
            ("ended", Some(ended)),
        ];
        VmReport {
            milestones: milestones.into_iter().filter_map(milestone).collect(),
            vcpus: own.iter_mut().map(|f| vcpu(f)).collect(),
            io_apic: interrupts::io_apic(&guest.io_apic),
            shadow: shadow(guest),
            memory: VmMemory {
                heap_bytes: guest.heap_bytes,
                page_table_bytes: guest.vm.page_table_bytes(),
                control_bytes: guest.control_bytes,
            },
            ..not_run(description, guest.paging(), end(guest.vm.control().ended()))
        }
    };
    stage.vms.iter().zip(vms).enumerate().map(vm).collect()
}

/// The report of a VM that has done nothing.
pub fn not_run(description: &VmDescription, paging: Paging, end: End) -> VmReport {
    VmReport {
        name: description.name.clone(),
        size: GuestSize {
            memory_bytes: description.memory_mib.saturating_mul(1 << 20),
            vcpus: description.vcpus,
            paging,
        },
        rounds: 0,
        milestones: Vec::new(),
        vcpus: Vec::new(),
        io_apic: Vec::new(),
        shadow: Vec::new(),
        memory: VmMemory { heap_bytes: 0, page_table_bytes: 0, control_bytes: 0 },
        end,
    }
}

/// All counters of shadow paging, so that those that are zero can be told from none.
fn shadow<B: Backend>(guest: &GuestVm<B>) -> Vec<Counter> {
    let statistics = guest.vm.shadow_statistics();
    let named = statistics.map(|statistics| statistics.named()).into_iter().flatten();
    named.map(|(name, count)| Counter { name: name.to_string(), count }).collect()
}

fn milestone((name, tsc): (&str, Option<u64>)) -> Option<Milestone> {
    let tsc = since_entry(tsc?);
    let microseconds = scale(tsc, 1_000_000, COKERNEL.tsc_frequency().0);
    Some(Milestone { name: name.to_string(), tsc, microseconds })
}

fn end(reason: Option<&EndReason>) -> End {
    let Some(reason) = reason else {
        let detail = "the vCPUs returned, but the VM has not ended".to_string();
        return End { kind: EndKind::Error, detail, exit_code: None };
    };
    let kind = match reason {
        EndReason::PowerOff => EndKind::PowerOff,
        EndReason::Reset(_) => EndKind::Reset,
        EndReason::ExitPort(_) => EndKind::ExitPort,
        EndReason::TripleFault { .. } => EndKind::TripleFault,
        EndReason::Halted => EndKind::Halted,
        EndReason::Stopped(_) => EndKind::Stopped,
        EndReason::EntryFailure { .. } => EndKind::EntryFailure,
        EndReason::EmulationFailure { .. } => EndKind::EmulationFailure,
        EndReason::MachineCheck { .. }
        | EndReason::NestedMisconfiguration { .. }
        | EndReason::ShadowPaging { .. }
        | EndReason::UnknownExit { .. } => EndKind::Error,
    };
    let exit_code = match reason {
        EndReason::ExitPort(value) => Some(*value),
        _ => None,
    };
    End { kind, detail: reason.to_string(), exit_code }
}

fn vcpu<B: Backend>(finished: &mut Finished<B>) -> VcpuReport {
    let local_apic = interrupts::local_apic(&finished.vcpu.local_apic());
    let statistics = finished.vcpu.statistics();
    VcpuReport {
        index: finished.vcpu.index(),
        cpu: finished.cpu.0,
        entries: statistics.entries,
        interpreted: statistics.interpreted,
        exits: ExitReason::ALL.iter().filter_map(|reason| exits(statistics, *reason)).collect(),
        injected: injected(statistics),
        unclaimed: Unclaimed::ALL
            .iter()
            .filter_map(|kind| counter(kind.name().to_string(), statistics.unclaimed(*kind)))
            .collect(),
        guest_tsc: statistics.guest_ticks,
        idle_tsc: statistics.idle_ticks,
        local_apic: Some(local_apic),
    }
}

fn exits(statistics: &VcpuStatistics, reason: ExitReason) -> Option<ExitCounter> {
    let exits = statistics.exits(reason);
    let used = exits.histogram.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
    (exits.count > 0).then(|| ExitCounter {
        reason: reason.name().to_string(),
        count: exits.count,
        cycles: exits.ticks,
        max_cycles: exits.max_ticks,
        accesses: exits.accesses,
        histogram: exits.histogram[..used].to_vec(),
    })
}

fn injected(statistics: &VcpuStatistics) -> Vec<Counter> {
    let named = |kind: &'static str| {
        move |(vector, count): (vmm_core::Vector, u64)| {
            counter(format!("{kind}_{:#04x}", vector.0), count)
        }
    };
    let interrupts = statistics.interrupts().into_iter().filter_map(named("interrupt"));
    let exceptions = statistics.exceptions().into_iter().filter_map(named("exception"));
    let nmis = counter("nmi".to_string(), statistics.nmis);
    interrupts.chain(exceptions).chain(nmis).collect()
}

fn counter(name: String, count: u64) -> Option<Counter> {
    (count > 0).then_some(Counter { name, count })
}
