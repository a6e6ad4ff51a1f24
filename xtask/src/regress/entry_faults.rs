// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries into guests that are made to fail: each ends its VM with the check that failed, and
//! leaves the co-kernel able to run the next VM.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wire::{EndKind, FORMAT_VERSION, Manifest, RunReport, Stage, VmDescription};

use super::guest::EntryFault;
use super::matrix::Cpu;
use super::table::Entry;
use crate::cargo_build;
use crate::paths::Paths;
use crate::platform::Platform;
use crate::run::bundle::Member;
use crate::test::machine::TestMachine;
use crate::test::{Log, Tally, bare_metal};

/// The guest in all VMs.
const GUEST: &str = "hello";
/// Its first entry: protected mode without paging.
const FIRST: u64 = 1;
/// An entry in its middle: 64-bit mode.
const LATER: u64 = 12;
/// A sound VM follows each so many faults, and the last.
const SOUND_EVERY: usize = 4;

const fn fault(what: &'static str, reason: &'static str) -> EntryFault {
    EntryFault { what, at_entry: LATER, reason }
}

const fn early(what: &'static str, reason: &'static str) -> EntryFault {
    EntryFault { what, at_entry: FIRST, reason }
}

/// One or more for each group of checks on VMX (Intel SDM volume 3, 26.2 to 26.4).
pub const VMX: &[EntryFault] = &[
    fault("pin-controls", "invalid control fields"),
    fault("primary-controls", "invalid control fields"),
    fault("secondary-controls", "invalid control fields"),
    fault("exit-controls", "invalid control fields"),
    fault("entry-controls", "invalid control fields"),
    fault("io-bitmaps", "invalid control fields"),
    fault("ept-pointer", "invalid control fields"),
    fault("entry-event", "invalid control fields"),
    fault("host-control-registers", "invalid host-state fields"),
    fault("host-selectors", "invalid host-state fields"),
    fault("host-addresses", "invalid host-state fields"),
    fault("cr0", "CR0 has a bit"),
    fault("paging-without-protection", "CR0.PG without CR0.PE"),
    fault("cr4", "CR4 has a bit"),
    fault("cr3", "CR3"),
    fault("debug-controls", "IA32_DEBUGCTL or DR7"),
    fault("sysenter", "SYSENTER_ESP or SYSENTER_EIP"),
    fault("pat", "IA32_PAT"),
    fault("efer", "EFER"),
    fault("selectors", "a selector"),
    fault("segment-bases", "the base address of a segment"),
    early("virtual-8086", "virtual-8086"),
    fault("code-segment", "the access rights of CS"),
    fault("stack-segment", "the access rights of SS"),
    fault("data-segments", "the access rights of DS"),
    fault("system-segments", "the access rights of TR or LDTR"),
    fault("unusable-task-register", "the access rights of TR or LDTR"),
    fault("descriptor-tables", "GDTR or IDTR"),
    // Bochs 2.7 does not look whether a RIP of 64 bits is canonical.
    early("rip", "RIP or RFLAGS"),
    fault("rflags", "RIP or RFLAGS"),
    fault("activity", "activity, interruptibility"),
    fault("interruptibility", "activity, interruptibility"),
    fault("pending-debug", "pending exceptions"),
    fault("link-pointer", "the VMCS link pointer"),
    early("page-directory-pointers", "page-directory-pointer entries"),
    fault("msr-loading", "loading of MSRs"),
];

/// Those on VMX that are there without EPT, too. The host's PAT stays, and EFER is in an area.
pub const VMX_WITHOUT_EPT: &[EntryFault] = &[
    fault("pin-controls", "invalid control fields"),
    fault("primary-controls", "invalid control fields"),
    fault("secondary-controls", "invalid control fields"),
    fault("io-bitmaps", "invalid control fields"),
    fault("entry-event", "invalid control fields"),
    fault("host-selectors", "invalid host-state fields"),
    fault("cr0", "CR0 has a bit"),
    fault("cr4", "CR4 has a bit"),
    fault("cr3", "CR3"),
    fault("debug-controls", "IA32_DEBUGCTL or DR7"),
    fault("sysenter", "SYSENTER_ESP or SYSENTER_EIP"),
    fault("selectors", "a selector"),
    fault("segment-bases", "the base address of a segment"),
    early("virtual-8086", "virtual-8086"),
    fault("code-segment", "the access rights of CS"),
    fault("stack-segment", "the access rights of SS"),
    fault("data-segments", "the access rights of DS"),
    fault("system-segments", "the access rights of TR or LDTR"),
    fault("descriptor-tables", "GDTR or IDTR"),
    early("rip", "RIP or RFLAGS"),
    fault("rflags", "RIP or RFLAGS"),
    fault("interruptibility", "activity, interruptibility"),
    fault("link-pointer", "the VMCS link pointer"),
    fault("msr-loading", "loading of MSRs"),
];

/// The consistency checks of VMRUN (AMD APM volume 2, 15.5.1) that Bochs 2.7 makes. It does not
/// look at reserved bits of CR3, and long mode without CR0.PE ends it in a panic of its own.
pub const SVM_ON_BOCHS: &[EntryFault] = &[
    fault("svme", "EFER.SVME is clear"),
    fault("caching", "CR0.NW without CR0.CD"),
    fault("cr0", "CR0 has a bit above 31"),
    fault("cr4", "CR4 has a reserved bit"),
    fault("dr6", "DR6"),
    fault("dr7", "DR7"),
    fault("efer", "EFER has a reserved bit"),
    fault("paging-extensions", "without CR4.PAE"),
    fault("code-segment", "CS.L and CS.D"),
    fault("vmrun-intercept", "VMRUN is not intercepted"),
    fault("msr-map", "a permission map"),
    fault("io-map", "a permission map"),
    fault("event", "the event to inject"),
    fault("asid", "the ASID is zero"),
];

/// Those that QEMU 7.2 makes.
pub const SVM_ON_TCG: &[EntryFault] = &[
    fault("svme", "EFER.SVME is clear"),
    fault("caching", "CR0.NW without CR0.CD"),
    fault("cr0", "CR0 has a bit above 31"),
    fault("cr3", "CR3 has a reserved bit"),
    fault("cr4", "CR4 has a reserved bit"),
    fault("dr6", "DR6"),
    fault("dr7", "DR7"),
    fault("efer", "EFER has a reserved bit"),
    fault("paging-extensions", "without CR4.PAE"),
    fault("paging-without-protection", "without CR0.PE"),
    fault("code-segment", "CS.L and CS.D"),
    fault("vmrun-intercept", "VMRUN is not intercepted"),
    fault("msr-map", "a permission map"),
    fault("io-map", "a permission map"),
    fault("event", "the event to inject"),
    fault("asid", "the ASID is zero"),
];

/// Runs a VM for each fault, and sound ones among them, in one start of the co-kernel.
///
/// # Errors
/// Which VM ended otherwise than it should, and how.
pub fn run(
    paths: &Paths,
    cpu: &Cpu,
    faults: &[EntryFault],
    entry: &mut Entry,
    log: &mut Log,
) -> Result<Tally> {
    let image = cargo_build::faulty_cokernel(paths)?;
    let members = [Member { name: GUEST.into(), path: bare_metal::path(paths, GUEST)? }];
    let manifest = manifest(faults);
    let (machine, limit) = match cpu.platform {
        Platform::Qemu => (
            TestMachine::with_image(image, &manifest, &members)?.with(1, cpu.model, 512),
            Duration::from_secs(60),
        ),
        Platform::Bochs => (
            TestMachine::on_bochs(&image, cpu.model, &manifest, &members)?,
            Duration::from_secs(240),
        ),
    };
    let begin = Instant::now();
    let report = machine.run(limit, log)?.report()?;
    entry.seconds = begin.elapsed().as_secs_f64();
    entry.note(&report);
    judge(faults, &report, log)
}

fn manifest(faults: &[EntryFault]) -> Manifest {
    let mut stages = Vec::new();
    let mut push = |vm: VmDescription| stages.push(Stage { vms: vec![vm], repeat: 1 });
    for (index, fault) in faults.iter().enumerate() {
        let spoiled = wire::EntryFault { what: fault.what.into(), at_entry: fault.at_entry };
        push(VmDescription {
            entry_fault: Some(spoiled),
            ..bare_metal::vm(fault.what, GUEST, String::new())
        });
        if (index + 1) % SOUND_EVERY == 0 || index + 1 == faults.len() {
            push(bare_metal::vm(&sound(index), GUEST, String::new()));
        }
    }
    Manifest { version: FORMAT_VERSION, stages }
}

/// Name of the sound VM behind a fault.
fn sound(index: usize) -> String {
    format!("sound-{index}")
}

/// Counts the VMs that ended as they should.
fn judge(faults: &[EntryFault], report: &RunReport, log: &mut Log) -> Result<Tally> {
    let mut tally = Tally::default();
    for vm in &report.vms {
        let passed = match faults.iter().find(|fault| fault.what == vm.name) {
            Some(fault) => {
                vm.end.kind == EndKind::EntryFailure && vm.end.detail.contains(fault.reason)
            }
            None => vm.end.kind == EndKind::ExitPort && vm.end.exit_code == Some(0),
        };
        let verdict = if passed { "ok" } else { "FAIL" };
        log.line(format_args!("{verdict} {}: {}", vm.name, vm.end.detail));
        let one = Tally { passed: passed.into(), failed: (!passed).into() };
        tally = tally.plus(one);
    }
    let last = report.vms.last().context("no VM was run")?;
    ensure!(last.name.starts_with("sound-"), "the run ended with VM '{}'", last.name);
    ensure!(report.before == report.after, "memory was left behind");
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_vms_are_among_the_others_and_come_last() {
        let manifest = manifest(VMX);
        let sound =
            manifest.stages.iter().filter(|stage| stage.vms[0].entry_fault.is_none()).count();
        assert_eq!(sound, VMX.len().div_ceil(SOUND_EVERY));
        assert!(manifest.stages.last().unwrap().vms[0].entry_fault.is_none());
        assert_eq!(manifest.validate(), Ok(()));
    }
}
