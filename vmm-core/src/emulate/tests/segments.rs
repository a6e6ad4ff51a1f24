// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segmentation in protected, real and virtual-8086 mode.

use super::machine::{CODE, DATA, Machine, code, data};
use crate::emulate::Outcome;
use crate::state::{Exception, Gpr, SegmentAttributes, SegmentRegister, rflags};

const DONE: Outcome = Outcome::Done { debug_trap: false };
const GENERAL_PROTECTION: Outcome = Outcome::Fault(Exception::GENERAL_PROTECTION);

/// `mov [offset], eax` or `mov eax, [offset]` through DS with these attributes and limit.
fn access(write: bool, attributes: SegmentAttributes, limit: u32, offset: u64) -> Outcome {
    let opcode = if write { 0x89 } else { 0x8B };
    let mut machine = Machine::protected(&[opcode, 0x03]).set(Gpr::Rbx, offset);
    let ds = machine.cpu.segment_mut(SegmentRegister::Ds);
    (ds.attributes, ds.limit, ds.base) = (attributes, limit, DATA);
    machine.run()
}

#[test]
fn limits_count_the_last_byte() {
    assert_eq!(access(true, data(), 0x103, 0x100), DONE);
    assert_eq!(access(true, data(), 0x102, 0x100), GENERAL_PROTECTION);
    assert_eq!(access(true, data(), u32::MAX, 0xFFFF_FFFE), GENERAL_PROTECTION);
}

#[test]
fn expand_down_segments_begin_above_their_limit() {
    let big = data().with_kind(7);
    assert_eq!(access(true, big, 0xFF, 0x100), DONE);
    assert_eq!(access(true, big, 0x100, 0x100), GENERAL_PROTECTION);
    assert_eq!(access(true, big.with_default_big(false), 0xFF, 0xFFFE), GENERAL_PROTECTION);
}

#[test]
fn types_restrict_access() {
    let read_only = data().with_kind(1);
    assert_eq!(access(false, read_only, u32::MAX, 0), DONE);
    assert_eq!(access(true, read_only, u32::MAX, 0), GENERAL_PROTECTION);
    assert_eq!(access(false, code(), u32::MAX, 0), DONE);
    assert_eq!(access(true, code(), u32::MAX, 0), GENERAL_PROTECTION);
    assert_eq!(access(false, code().with_kind(9), u32::MAX, 0), GENERAL_PROTECTION);
    assert_eq!(access(false, data().with_unusable(true), u32::MAX, 0), GENERAL_PROTECTION);
    assert_eq!(access(false, data().with_present(false), u32::MAX, 0), GENERAL_PROTECTION);
}

#[test]
fn stack_segment_violations_are_stack_faults() {
    // mov [ebp], eax; push eax.
    for code in [&[0x89, 0x45, 0x00][..], &[0xFF, 0xF0]] {
        let mut machine = Machine::protected(code).set(Gpr::Rbp, 0x2000).set(Gpr::Rsp, 0x2004);
        machine.cpu.segment_mut(SegmentRegister::Ss).limit = 0x1FFF;
        assert_eq!(machine.run(), Outcome::Fault(Exception::STACK));
    }
}

#[test]
fn code_beyond_the_limit_is_not_fetched() {
    let mut machine = Machine::protected(&[0x90]);
    machine.cpu.segment_mut(SegmentRegister::Cs).limit = CODE as u32 - 1;
    assert_eq!(machine.run(), GENERAL_PROTECTION);
}

#[test]
fn overrides_select_the_segment_and_linear_addresses_wrap() {
    // mov gs:[ebx], al.
    let mut machine =
        Machine::protected(&[0x65, 0x88, 0x03]).set(Gpr::Rbx, 0x3000).set(Gpr::Rax, 0x5A);
    machine.cpu.segment_mut(SegmentRegister::Gs).base = 0xFFFF_F010;
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA + 0x10, 1), 0x5A);
}

#[test]
fn sixteen_bit_addressing_wraps_at_64_kib() {
    // mov [bx + si], al in real mode.
    let mut machine = Machine::real(&[0x88, 0x00])
        .set(Gpr::Rbx, 0xFFFF_FFFF)
        .set(Gpr::Rsi, 0x0000_0011)
        .set(Gpr::Rax, 0x66);
    machine.cpu.segment_mut(SegmentRegister::Ds).base = DATA;
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA + 0x10, 1), 0x66);
}

#[test]
fn small_stacks_use_sp_only() {
    // push eax with SS.B clear, and SP about to wrap.
    let mut machine =
        Machine::protected(&[0xFF, 0xF0]).set(Gpr::Rsp, 0xABCD_0002).set(Gpr::Rax, 0x1122_3344);
    let ss = machine.cpu.segment_mut(SegmentRegister::Ss);
    ss.attributes = ss.attributes.with_default_big(false);
    machine.bus.add(0xF000);
    machine.bus.add(0x1_0000);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rsp), 0xABCD_FFFE);
    assert_eq!(machine.bus.load(0xFFFE, 4), 0x1122_3344);
}

#[test]
fn segment_registers_are_stored_and_without_descriptors_loaded() {
    // mov [rbx], ds.
    let mut machine = Machine::long(&[0x8C, 0x1B]).set(Gpr::Rbx, DATA);
    machine.cpu.segment_mut(SegmentRegister::Ds).selector = 0x23;
    machine.bus.store(DATA, 4, 0xFFFF_FFFF);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA, 4), 0xFFFF_0023);
    // mov es, [bx].
    let load = &[0x8E, 0x07];
    let mut machine = Machine::real(load).set(Gpr::Rbx, DATA);
    machine.bus.store(DATA, 2, 0xB800);
    assert_eq!(machine.run(), DONE);
    let es = machine.cpu.segments[SegmentRegister::Es as usize];
    assert_eq!((es.selector, es.base, es.limit), (0xB800, 0xB_8000, 0xFFFF));
}

#[test]
fn virtual_8086_mode_is_16_bit_and_checks_limits_only() {
    // mov [bx], ax, with attributes that mean nothing here.
    let mut machine = Machine::protected(&[0x89, 0x07]).set(Gpr::Rbx, DATA).set(Gpr::Rax, 0xABCD);
    machine.cpu.rflags |= rflags::VM;
    machine.cpu.cpl = 3;
    for segment in &mut machine.cpu.segments {
        segment.limit = 0xFFFF;
        segment.attributes = SegmentAttributes::new().with_present(true);
    }
    machine.bus.store(DATA, 4, 0);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA, 4), 0xABCD);
    machine.cpu.rip = CODE;
    machine.cpu.gprs[Gpr::Rbx as usize] = 0xFFFF;
    assert_eq!(machine.run(), GENERAL_PROTECTION);
}

#[test]
fn address_size_32_wraps_in_64_bit_mode() {
    // mov [ebx + esi], al.
    let mut machine = Machine::long(&[0x67, 0x88, 0x04, 0x33])
        .set(Gpr::Rbx, 0x7_FFFF_FFFF)
        .set(Gpr::Rsi, 0x9_0000_0001 + DATA)
        .set(Gpr::Rax, 0x31);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA, 1), 0x31);
}
