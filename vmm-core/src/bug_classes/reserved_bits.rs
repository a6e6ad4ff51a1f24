// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes of registers with each bit that is reserved: they fault, and change nothing.

use std::num::NonZeroU32;

use crate::{
    ControlRegisterAccess, Exit,
    control_registers::{check_cr0, check_cr3, check_cr4, check_cr8, check_xcr0},
    cpuid::{CpuidModel, CpuidResult, CpuidTable},
    emulate::{Outcome, tests::machine::Machine as Emulated},
    msr::{validate_efer, validate_pat, validate_tsc_aux},
    state::{Exception, Gpr, cr0, cr4, dr6, dr7, efer},
    vcpu::tests::machine::{CODE, Machine, machine},
};

const GP: Exception = Exception::GENERAL_PROTECTION;

/// A model on a host that claims to have everything.
fn model(vendor: fn(NonZeroU32, u32) -> CpuidModel) -> CpuidTable {
    let all = |_, _| CpuidResult::new(u32::MAX, u32::MAX, u32::MAX, u32::MAX);
    CpuidTable::new(vendor(NonZeroU32::MIN, 1_000_000), &all)
}

fn models() -> [CpuidTable; 2] {
    [model(CpuidModel::amd), model(CpuidModel::intel)]
}

fn bits() -> impl Iterator<Item = u64> {
    (0..64).map(|bit| 1 << bit)
}

#[test]
fn cr0_has_no_upper_half_and_no_impossible_mode() {
    let old = cr0::PE | cr0::PG | cr0::ET;
    for bit in bits() {
        let result = check_cr0(old, old | bit, cr4::PAE, 0, false);
        // NW without CD; what else is undefined in the lower half is ignored.
        let legal = bit >> 32 == 0 && bit != cr0::NW;
        assert_eq!(result.is_ok(), legal, "{bit:#x}");
        let loaded = result.map_or(old, |change| change.cr0);
        assert_eq!(loaded & !(cr0::DEFINED | cr0::ET), 0, "{bit:#x}");
    }
    assert!(check_cr0(old, cr0::PG, 0, 0, false).is_err());
    assert!(check_cr0(old, cr0::PE | cr0::NW, 0, 0, false).is_err());
    let leaves = check_cr0(old, cr0::PE, cr4::PAE, efer::LME | efer::LMA, true);
    assert!(leaves.is_err(), "64-bit code cannot switch paging off");
}

#[test]
fn cr3_has_no_bit_beyond_the_physical_addresses() {
    for table in models() {
        let width = table.physical_address_bits();
        for bit in 0..64 {
            let result = check_cr3(1 << bit, efer::LME | efer::LMA, &table);
            assert_eq!(result.is_ok(), bit < width, "{bit}");
        }
        assert_eq!(check_cr3(u64::MAX, 0, &table), Ok(0xFFFF_FFFF), "outside long mode");
    }
}

#[test]
fn cr4_has_only_what_the_model_shows() {
    // VME to PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE, SMEP, SMAP: neither LA57, VMXE,
    // SMXE, PCIDE, PKE, CET and PKS nor what has no name.
    const LEGAL: u64 = 0x7FF | 1 << 11 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 21;
    for table in models() {
        for bit in bits() {
            let result = check_cr4(0, bit, 0, &table);
            assert_eq!(result.is_ok(), bit & LEGAL != 0, "{bit:#x}");
        }
        assert!(check_cr4(cr4::PAE, 0, efer::LMA | efer::LME, &table).is_err(), "PAE stays");
    }
}

#[test]
fn cr8_and_tsc_aux_have_only_their_low_bits() {
    for bit in 0..64 {
        assert_eq!(check_cr8(1 << bit).is_ok(), bit < 4, "{bit}");
        assert_eq!(validate_tsc_aux(1 << bit).is_ok(), bit < 32, "{bit}");
    }
}

#[test]
fn xcr0_has_only_components_that_go_together() {
    // x87, SSE, AVX, and opmask with both upper halves of ZMM.
    const OFFERED: u64 = 0xE7;
    let legal = [0x1, 0x3, 0x7, 0xE7];
    for value in (0..0x400).chain(bits()).chain(bits().map(|bit| bit | OFFERED)) {
        let expected = legal.contains(&value);
        assert_eq!(check_xcr0(value, OFFERED).is_ok(), expected, "{value:#x}");
    }
    for value in [0x1, 0x3] {
        assert!(check_xcr0(value, 0).is_err(), "without XSAVE");
    }
}

#[test]
fn efer_has_only_what_the_model_shows() {
    for (table, legal) in
        models().iter().zip([0x1 | 0x100 | 0x400 | 0x800 | 0x4000, 0x1 | 0x100 | 0x400 | 0x800])
    {
        for bit in bits() {
            let result = validate_efer(0, bit, 0, table);
            assert_eq!(result.is_ok(), bit & legal != 0, "{bit:#x}");
            assert_ne!(result, Ok(efer::LMA), "LMA is not software's");
        }
        let paging = validate_efer(0, efer::LME, cr0::PG | cr0::PE, table);
        assert!(paging.is_err(), "long mode is not chosen while paging is on");
    }
}

#[test]
fn pat_has_only_types_that_exist() {
    for entry in 0..8 {
        for kind in 0..=0xFF_u64 {
            let legal = matches!(kind, 0 | 1 | 4 | 5 | 6 | 7);
            let value = 0x0606_0606_0606_0606 & !(0xFF << (8 * entry)) | kind << (8 * entry);
            assert_eq!(validate_pat(value).is_ok(), legal, "{value:#x}");
        }
    }
}

/// What a WRMSR of the value to the register leads to, and its value before and after.
fn write_msr(machine: &mut Machine, msr: u32, value: u64) -> (Result<(), Exception>, bool) {
    let before = read_msr(machine, msr);
    machine.set_gpr(Gpr::Rcx, msr.into());
    machine.set_gpr(Gpr::Rax, value & 0xFFFF_FFFF);
    machine.set_gpr(Gpr::Rdx, value >> 32);
    let result = machine.handle(Exit::WriteMsr);
    (result, read_msr(machine, msr) == before)
}

fn read_msr(machine: &mut Machine, msr: u32) -> Option<u64> {
    machine.registers().next_rip = Some(CODE);
    machine.set_gpr(Gpr::Rcx, msr.into());
    machine.handle(Exit::ReadMsr).ok()?;
    Some(machine.gpr(Gpr::Rdx) << 32 | machine.gpr(Gpr::Rax))
}

#[test]
fn no_msr_takes_a_bit_that_it_does_not_have() {
    const PHYSICAL: u64 = (1 << 39) - 1;
    // Number and writable bits. On this machine's own CPUID depends how wide addresses are, but
    // 39 bits have all; what lies between is not tried.
    let registers = [
        ("IA32_APIC_BASE", 0x1B, 0xFFFF_F000 | 0xC00),
        ("MTRR_DEF_TYPE", 0x2FF, 0xC00 | 1 | 4 | 5 | 6),
        ("MTRR_PHYS_MASK0", 0x201, PHYSICAL & !0xFFF | 0x800),
        ("MTRR_PHYS_BASE0", 0x200, PHYSICAL & !0xFFF | 1 | 4 | 5 | 6),
        ("MCG_STATUS", 0x17A, 7),
        ("DEBUG_CTL", 0x1D9, 0),
        ("MCG_CAP", 0x179, 0),
        ("MTRR_CAP", 0xFE, 0),
        ("VM_HSAVE_PA", 0xC001_0117, 0),
        ("SMM_BASE", 0xC001_0111, 0),
        ("IA32_VMX_BASIC", 0x480, 0),
        ("IA32_XSS", 0xDA0, 0),
        // On VT-x the guest's value is in the register of the host's CPU, which refuses the rest.
        ("IA32_FMASK", 0xC000_0084, 0xFFFF_FFFF),
    ];
    for (name, msr, writable) in registers {
        for bit in (0..64).filter(|bit| !(39..52).contains(bit)).map(|bit| 1_u64 << bit) {
            if bit & writable != 0 || msr == 0x2FF && bit < 8 || msr == 0x200 && bit < 8 {
                continue;
            }
            let mut machine = machine();
            let (result, same) = write_msr(&mut machine, msr, bit);
            assert_eq!(result, Err(GP), "{name}, {bit:#x}");
            assert!(same, "{name}, {bit:#x}");
        }
    }
}

#[test]
fn a_refused_control_register_is_as_it_was() {
    for (register, value) in [(0, 1 << 32), (0, cr0::PG), (4, 1 << 13), (4, 1 << 63), (8, 0x10)] {
        let mut machine = machine();
        machine.enter_long_mode();
        machine.set_gpr(Gpr::Rsi, value);
        let before = machine.registers().control;
        let rip = machine.registers().rip;
        let write = ControlRegisterAccess::Write { register, source: Some(Gpr::Rsi) };
        let result = machine.handle(Exit::ControlRegister(write));
        assert_eq!(result, Err(GP), "CR{register} {value:#x}");
        assert_eq!((machine.registers().control, machine.registers().rip), (before, rip));
        assert_eq!(machine.task_priority_class(), 0);
    }
    for register in [1, 5, 6, 7, 9, 15] {
        let mut machine = machine();
        let write = ControlRegisterAccess::Write { register, source: Some(Gpr::Rsi) };
        let result = machine.handle(Exit::ControlRegister(write));
        assert_eq!(result, Err(Exception::INVALID_OPCODE), "CR{register}");
    }
}

#[test]
fn debug_registers_keep_what_is_fixed_and_refuse_an_upper_half() {
    // mov dr6, rax and mov dr7, rax.
    for (number, code, fixed, defined) in [
        (6, [0x0F, 0x23, 0xF0], dr6::FIXED, dr6::CAUSES),
        (7, [0x0F, 0x23, 0xF8], dr7::FIXED, dr7::DEFINED),
    ] {
        for bit in bits() {
            let mut machine = Emulated::long(&code).set(Gpr::Rax, bit);
            let before = machine.cpu.debug;
            let outcome = machine.run();
            if bit >> 32 == 0 {
                assert!(matches!(outcome, Outcome::Done { .. }), "DR{number} {bit:#x}");
                let value = machine.cpu.debug[number];
                assert_eq!(value & fixed, fixed, "DR{number} {bit:#x}");
                assert_eq!(value & !(fixed | defined), 0, "DR{number} {bit:#x}");
            } else {
                assert_eq!(outcome, Outcome::Fault(GP), "DR{number} {bit:#x}");
                assert_eq!(machine.cpu.debug, before);
            }
        }
    }
}
