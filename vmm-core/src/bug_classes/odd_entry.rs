// SPDX-License-Identifier: MIT OR Apache-2.0
//! States that are legal for a guest, or that only the emulator could make, and that an entry must
//! not be refused for: it would end the VM where a CPU raises an exception or goes on.
//!
//! What concerns one vendor's control structure alone is tested beside it.

use crate::{
    emulate::{
        Outcome,
        tests::machine::{DATA, Machine},
    },
    state::{DescriptorTable, Exception, Gpr, SegmentRegister, rflags},
};

const DONE: Outcome = Outcome::Done { debug_trap: false };
/// Bit 63 and bit 47 apart.
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;

#[test]
fn descriptor_tables_lie_at_linear_addresses() {
    // lgdt [rbx]; lidt [rbx].
    for code in [&[0x0F, 0x01, 0x13], &[0x0F, 0x01, 0x1B]] {
        for (base, expected) in [
            (NOT_CANONICAL, Outcome::Fault(Exception::GENERAL_PROTECTION)),
            (1 << 63, Outcome::Fault(Exception::GENERAL_PROTECTION)),
            (0xFFFF_8000_0000_0000, DONE),
            (0x0000_7FFF_FFFF_FFFF, DONE),
        ] {
            let mut machine = Machine::long(code).set(Gpr::Rbx, DATA);
            machine.bus.store(DATA, 2, 0xFFF);
            machine.bus.store(DATA + 2, 8, base);
            let before = machine.cpu.clone();
            assert_eq!(machine.run(), expected, "{code:02x?} {base:#x}");
            let tables = [machine.cpu.gdtr, machine.cpu.idtr];
            let loaded = tables.contains(&DescriptorTable { base, limit: 0xFFF });
            assert_eq!(loaded, expected == DONE);
            assert!(loaded || machine.cpu == before);
        }
    }
}

/// Loads the system descriptor in long mode of this type, base and upper half; the table ends
/// `short` bytes before the descriptor does.
fn load_system(code: &[u8], kind: u64, upper: u64, short: u16) -> (Outcome, Machine) {
    let mut machine = Machine::long(code).set(Gpr::Rax, 8);
    let table = DATA + 0x1000;
    machine.cpu.gdtr = DescriptorTable { base: table, limit: 0x17 - short };
    machine.bus.store(table + 8, 8, 0x0000_8000_2000_0067 | kind << 40);
    machine.bus.store(table + 16, 8, upper);
    let outcome = machine.run();
    (outcome, machine)
}

#[test]
fn system_segments_of_long_mode_lie_at_linear_addresses() {
    let fault = Outcome::Fault(Exception::with_code(13, 8));
    // ltr ax; lldt ax.
    for (code, kind, register) in [
        (&[0x0F, 0x00, 0xD8], 9, SegmentRegister::Tr),
        (&[0x0F, 0x00, 0xD0], 2, SegmentRegister::Ldtr),
    ] {
        let (outcome, machine) = load_system(code, kind, 0xFFFF_8000, 0);
        assert_eq!(outcome, DONE);
        assert_eq!(machine.cpu.segments[register as usize].base, 0xFFFF_8000_0000_2000);
        assert_eq!(load_system(code, kind, 0x8000, 0).0, fault, "not canonical");
        assert_eq!(load_system(code, kind, 0, 1).0, fault, "beyond the table");
        assert_eq!(load_system(code, kind, 1 << 40, 0).0, fault, "the upper half has a type");
        let (_, machine) = load_system(code, kind, 0x8000, 0);
        assert_eq!(machine.bus.load(DATA + 0x1008, 8) >> 40 & 0xFF, 0x80 | kind, "nor is it busy");
    }
}

#[test]
fn far_returns_lead_to_linear_addresses() {
    const LONG: u64 = 0x00AF_9B00_0000_FFFF;
    const LEGACY: u64 = 0x0040_9B00_0000_FFFF;
    let fault = Outcome::Fault(Exception::GENERAL_PROTECTION);
    for (descriptor, rip, expected) in [
        (LONG, NOT_CANONICAL, fault),
        (LONG, 1 << 63, fault),
        (LONG, 0xFFFF_8000_0000_0000, DONE),
        (LONG, 0x0000_7FFF_FFFF_FFFF, DONE),
        (LEGACY, 0xFFFF, DONE),
        (LEGACY, 0x1_0000, fault),
        (LEGACY, 1 << 32, fault),
    ] {
        // retfq.
        let mut machine = Machine::long(&[0x48, 0xCB]).set(Gpr::Rsp, DATA);
        machine.cpu.gdtr = DescriptorTable { base: DATA + 0x1000, limit: 0xF };
        machine.bus.store(DATA + 0x1008, 8, descriptor);
        machine.bus.store(DATA, 8, rip);
        machine.bus.store(DATA + 8, 8, 8);
        let before = machine.cpu.clone();
        assert_eq!(machine.run(), expected, "{descriptor:#x} {rip:#x}");
        assert!(if expected == DONE { machine.cpu.rip == rip } else { machine.cpu == before });
    }
}

#[test]
fn flags_that_do_not_exist_are_not_loaded() {
    const RESERVED: u64 = !0x3F_7FD7 | 1 << 3 | 1 << 5 | 1 << 15;
    // popfq; popfd.
    for build in [Machine::long as fn(&[u8]) -> Machine, Machine::protected] {
        let mut machine = build(&[0x9D]).set(Gpr::Rsp, DATA);
        machine.bus.store(DATA, 8, u64::MAX);
        assert!(matches!(machine.run(), Outcome::Done { .. }));
        assert_eq!(machine.cpu.rflags & (RESERVED | rflags::VM), 0);
        assert_ne!(machine.cpu.rflags & rflags::FIXED, 0);
    }
}

#[test]
fn null_selectors_make_unusable_segments_that_are_never_reached() {
    // mov ds, ax; mov eax, [ebx].
    for selector in 0..4 {
        let mut machine = Machine::protected(&[0x8E, 0xD8, 0x8B, 0x03])
            .set(Gpr::Rbx, DATA)
            .set(Gpr::Rax, selector);
        machine.cpu.gdtr = DescriptorTable { base: DATA, limit: 0xF };
        assert_eq!(machine.run(), DONE);
        let ds = machine.cpu.segments[SegmentRegister::Ds as usize];
        assert!(ds.attributes.unusable() && u64::from(ds.selector) == selector);
        assert_eq!(machine.run(), Outcome::Fault(Exception::GENERAL_PROTECTION));
    }
}
