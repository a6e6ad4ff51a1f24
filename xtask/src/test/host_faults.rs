// SPDX-License-Identifier: MIT OR Apache-2.0
//! A co-kernel whose calls fail: each VM that is hit ends with a message or goes on, all that it
//! took is back, and the VM beside it notices nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wire::{
    EndKind, FORMAT_VERSION, HostCall, HostFault, Manifest, Stage, VmDescription, VmReport,
};

use super::bare_metal;
use super::machine::{MachineAnswer, TestMachine};
use super::row::{Log, Row, Tally};
use crate::cargo_build;
use crate::paths::Paths;
use crate::platform::accelerator::Accelerator;
use crate::run::bundle::Member;

/// The guest in most VMs.
const GUEST: &str = "hello";
/// One that runs for so long that its second vCPU waits when it ends, and has to be kicked.
const LONGER: (&str, &str) = ("counter", "lines=10");
/// Name of the VM beside each faulty one.
const NEIGHBOUR: &str = "neighbour";
/// vCPUs of the faulty VM. The second is woken only by the VM's end.
const VCPUS: u32 = 2;

/// The calls, and a number of each that a VM's life does not reach, so that all there are were
/// tried.
const CALLS: &[(HostCall, u64)] = &[
    (HostCall::AllocatePages, 22),
    (HostCall::RunOn, VCPUS as u64 + 1),
    (HostCall::Kick, 4),
    (HostCall::ArmTimer, 4),
];

/// The row.
pub fn row(paths: &Paths) -> Row {
    let paths = paths.clone();
    Row::new("vm/host-faults", move |log| run(&paths, log))
}

fn run(paths: &Paths, log: &mut Log) -> Result<Tally> {
    let image = cargo_build::faulty_cokernel(paths)?;
    let mut members = Vec::new();
    for guest in [GUEST, LONGER.0] {
        members.push(Member { name: guest.into(), path: bare_metal::path(paths, guest)? });
    }
    let machine = TestMachine::with_image(image, &manifest(), &members)?;
    let cpus = Accelerator::Tcg.cpus_for(VCPUS + 1);
    let answer = machine.with(cpus, "max", 512).run(Duration::from_secs(120), log)?;
    judge(&answer)
}

/// A name that tells the fault.
fn name(call: HostCall, at: u64) -> String {
    format!("{}-{at}", call.name())
}

fn manifest() -> Manifest {
    let small = |name: &str| VmDescription {
        memory_mib: 16,
        time_limit_ms: Some(60_000),
        ..bare_metal::vm(name, GUEST, String::new())
    };
    let stage = |call, at| {
        let host_fault = Some(HostFault { call, at, lasting: false });
        let (kernel, words) = if call == HostCall::Kick { LONGER } else { (GUEST, "") };
        let (kernel, command_line) = (kernel.into(), words.into());
        let name = name(call, at);
        let faulty =
            VmDescription { host_fault, vcpus: VCPUS, kernel, command_line, ..small(&name) };
        Stage { vms: vec![faulty, small(NEIGHBOUR)], repeat: 1 }
    };
    let faults = CALLS.iter().flat_map(|&(call, most)| (1..=most).map(move |at| (call, at)));
    let mut stages: Vec<Stage> = faults.map(|(call, at)| stage(call, at)).collect();
    stages.push(Stage { vms: vec![small("last")], repeat: 1 });
    Manifest { version: FORMAT_VERSION, stages }
}

fn ended_well(vm: &VmReport) -> bool {
    vm.end.kind == EndKind::ExitPort && vm.end.exit_code == Some(0)
}

fn judge(answer: &MachineAnswer) -> Result<Tally> {
    let report = answer.report()?;
    let mut tally = Tally::default();
    for &(call, most) in CALLS {
        for at in 1..=most {
            let name = name(call, at);
            let vm = report.vms.iter().find(|vm| vm.name == name);
            let vm = vm.with_context(|| format!("{name} is missing in the report"))?;
            judge_one(answer, call, at, at == most, vm)?;
            tally = tally.plus(Tally::ONE);
        }
    }
    for vm in report.vms.iter().filter(|vm| [NEIGHBOUR, "last"].contains(&vm.name.as_str())) {
        ensure!(ended_well(vm), "VM '{}' ended: {}", vm.name, vm.end.detail);
        tally = tally.plus(Tally::ONE);
    }
    ensure!(report.vms.last().is_some_and(|vm| vm.name == "last"), "the last VM was not run");
    ensure!(
        report.before == report.after,
        "memory was left behind: {:?} before, {:?} after",
        report.before,
        report.after
    );
    Ok(tally)
}

/// A fault that was met ends its VM with a message, or is made up for.
fn judge_one(
    answer: &MachineAnswer,
    call: HostCall,
    at: u64,
    is_last: bool,
    vm: &VmReport,
) -> Result<()> {
    let line = format!("VM '{}': {} number {at}: ", vm.name, call.name());
    let told = answer.log.lines().find_map(|text| text.split_once(&line));
    let (_, told) = told.with_context(|| format!("the log is silent about {}", vm.name))?;
    let met = !told.starts_with("0 calls");
    ensure!(!met || !is_last, "{}: the VM makes more such calls than are tried", vm.name);
    // Whether the end of a VM kicks a vCPU that waits depends on how far that one has come.
    ensure!(met || at > 1 || call == HostCall::Kick, "{}: there was no such call", vm.name);
    let detail = &vm.end.detail;
    let refused = match call {
        HostCall::AllocatePages => {
            vm.end.kind == EndKind::Error && detail.contains("the host has no")
        }
        HostCall::RunOn => vm.end.kind == EndKind::Stopped && detail.contains("was not free"),
        HostCall::Kick | HostCall::ArmTimer => vm.end.kind == EndKind::Stopped,
    };
    ensure!(ended_well(vm) || met && refused, "VM '{}' ended: {detail}", vm.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_neighbour_and_a_sound_vm_comes_last() {
        let manifest = manifest();
        assert_eq!(manifest.validate(), Ok(()));
        let (last, stages) = manifest.stages.split_last().unwrap();
        assert!(last.vms[0].host_fault.is_none());
        for stage in stages {
            let faulty = stage.vms.iter().filter(|vm| vm.host_fault.is_some()).count();
            assert_eq!((stage.vms.len(), faulty), (2, 1));
        }
    }
}
