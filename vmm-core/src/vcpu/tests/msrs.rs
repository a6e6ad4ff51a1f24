// SPDX-License-Identifier: MIT OR Apache-2.0
//! RDMSR and WRMSR.

use std::sync::Arc;

use x86::msr::{
    IA32_CSTAR, IA32_EFER, IA32_FMASK, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GSBASE, IA32_LSTAR,
    IA32_PAT, IA32_STAR, IA32_SYSENTER_CS, IA32_SYSENTER_EIP, IA32_SYSENTER_ESP,
};

use super::{
    devices::{Hook, REFUSED_MSR},
    machine::{CODE, Machine, machine, machine_with},
};
use crate::{
    Exit,
    state::{Exception, Gpr, SegmentRegister, cr0, efer},
    statistics::Unclaimed,
};

/// Bit 63 and bit 47 apart: not a linear address.
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
const CANONICAL: u64 = 0xFFFF_8000_1234_5678;

fn write(machine: &mut Machine, msr: u32, value: u64) -> Result<(), Exception> {
    let garbage = 0xDEAD_BEEF << 32;
    machine.registers().next_rip = Some(CODE + 2);
    machine.set_gpr(Gpr::Rcx, garbage | u64::from(msr));
    machine.set_gpr(Gpr::Rax, garbage | value & 0xFFFF_FFFF);
    machine.set_gpr(Gpr::Rdx, garbage | value >> 32);
    machine.vcpu().handle(Exit::WriteMsr)
}

fn read(machine: &mut Machine, msr: u32) -> Result<u64, Exception> {
    machine.registers().next_rip = Some(CODE + 2);
    machine.set_gpr(Gpr::Rcx, msr.into());
    machine.set_gpr(Gpr::Rax, u64::MAX);
    machine.set_gpr(Gpr::Rdx, u64::MAX);
    machine.vcpu().handle(Exit::ReadMsr)?;
    let halves = [machine.gpr(Gpr::Rax), machine.gpr(Gpr::Rdx)];
    assert!(halves.iter().all(|half| half >> 32 == 0), "the upper halves are cleared");
    Ok(halves[1] << 32 | halves[0])
}

#[test]
fn registers_of_the_hardware_keep_what_was_written() {
    let mut machine = machine();
    for (msr, value) in [
        (IA32_STAR, u64::MAX),
        (IA32_LSTAR, CANONICAL),
        (IA32_CSTAR, CANONICAL + 1),
        (IA32_FMASK, 0x4_7700),
        (IA32_KERNEL_GSBASE, CANONICAL + 2),
        (IA32_SYSENTER_CS, 0x10),
        (IA32_SYSENTER_ESP, CANONICAL + 3),
        (IA32_SYSENTER_EIP, CANONICAL + 4),
        (IA32_PAT, 0x0007_0106_0007_0406),
        (IA32_FS_BASE, CANONICAL + 5),
        (IA32_GS_BASE, CANONICAL + 6),
    ] {
        write(&mut machine, msr, value).unwrap();
        assert_eq!(read(&mut machine, msr), Ok(value), "{msr:#x}");
    }
    let base = |machine: &mut Machine, r| machine.registers().segment_mut(r).base;
    assert_eq!(base(&mut machine, SegmentRegister::Fs), CANONICAL + 5);
    assert_eq!(base(&mut machine, SegmentRegister::Gs), CANONICAL + 6);
}

#[test]
fn values_that_a_register_cannot_hold_fault_and_change_nothing() {
    let mut machine = machine();
    let addresses = [
        IA32_LSTAR,
        IA32_CSTAR,
        IA32_KERNEL_GSBASE,
        IA32_SYSENTER_ESP,
        IA32_SYSENTER_EIP,
        IA32_FS_BASE,
        IA32_GS_BASE,
    ];
    let mut bad: Vec<_> = addresses.into_iter().map(|msr| (msr, NOT_CANONICAL)).collect();
    bad.extend([(IA32_PAT, 2), (IA32_PAT, 8 << 56), (IA32_EFER, efer::SVME), (IA32_EFER, 1 << 63)]);
    for (msr, value) in bad {
        let before = read(&mut machine, msr);
        machine.registers().rip = CODE;
        let result = write(&mut machine, msr, value);
        assert_eq!(result, Err(Exception::GENERAL_PROTECTION), "{msr:#x}");
        assert_eq!(machine.registers().rip, CODE, "a fault leaves RIP on the instruction");
        assert_eq!(read(&mut machine, msr), before);
    }
}

#[test]
fn long_mode_cannot_be_chosen_while_paging_is_on() {
    let mut machine = machine();
    write(&mut machine, IA32_EFER, efer::LME).unwrap();
    assert_eq!(machine.registers().control.efer, efer::LME);
    machine.registers().control.cr0 |= cr0::PG;
    machine.registers().control.efer |= efer::LMA;
    assert!(write(&mut machine, IA32_EFER, 0).is_err());
    // LMA is not software's: clearing it has no effect.
    write(&mut machine, IA32_EFER, efer::LME).unwrap();
    assert_eq!(read(&mut machine, IA32_EFER), Ok(efer::LME | efer::LMA));
}

#[test]
fn unknown_registers_fault_and_are_counted() {
    let mut machine = machine();
    for msr in [0x4000_00F0, 0xC001_1111, u32::MAX] {
        assert_eq!(read(&mut machine, msr), Err(Exception::GENERAL_PROTECTION));
        assert_eq!(write(&mut machine, msr, 0), Err(Exception::GENERAL_PROTECTION));
    }
    assert_eq!(machine.unclaimed(Unclaimed::MsrRead), 3);
    assert_eq!(machine.unclaimed(Unclaimed::MsrWrite), 3);
}

#[test]
fn hooks_come_before_everything_else() {
    let hook = Arc::<Hook>::default();
    let mut machine = machine_with(1, |builder| {
        builder.hooks().add_msrs(0x4000_00F0..=0x4000_00FF, hook.clone());
        builder.hooks().add_msrs(IA32_STAR..=IA32_STAR, hook.clone());
    });
    assert_eq!(read(&mut machine, 0x4000_00F1), Ok(0x4000_00F1 << 32));
    assert_eq!(write(&mut machine, IA32_STAR, 7 << 32 | 5), Ok(()));
    assert_eq!(*hook.writes.lock().unwrap(), [(0, IA32_STAR, 7 << 32 | 5)]);
    assert!(machine.registers().msrs.is_empty(), "the hardware's register is untouched");
    assert_eq!(read(&mut machine, REFUSED_MSR), Err(Exception::GENERAL_PROTECTION));
    assert_eq!(write(&mut machine, REFUSED_MSR, 1), Err(Exception::GENERAL_PROTECTION));
}

#[test]
fn the_counter_that_the_guest_sets_counts_from_there() {
    const IA32_TSC: u32 = 0x10;
    let mut machine = machine();
    machine.host.advance(1_000);
    write(&mut machine, IA32_TSC, 1 << 40).unwrap();
    machine.host.advance(500);
    assert_eq!(read(&mut machine, IA32_TSC), Ok((1 << 40) + 500));
    let guest = machine.registers().tsc_offset.wrapping_add(1_500);
    assert_eq!(guest, (1 << 40) + 500, "the hardware counts alike");
}
