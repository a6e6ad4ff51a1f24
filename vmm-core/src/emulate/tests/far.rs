// SPDX-License-Identifier: MIT OR Apache-2.0
//! Far transfers and loads of segment registers.

use super::machine::{CODE, DATA, Machine};
use crate::emulate::Outcome;
use crate::exit::{Exit, TaskSwitch, TaskSwitchSource};
use crate::state::{
    DescriptorTable, Exception, Gpr, InterruptShadow, Segment, SegmentRegister, cr0, rflags,
};

pub(super) const DONE: Outcome = Outcome::Done { debug_trap: false };

/// Where tests put the GDT, the LDT and the IDT.
pub(super) const GDT: u64 = DATA + 0x1000;

/// Descriptors of flat and small segments at privilege level 0 unless they say otherwise.
pub(super) const CODE_32: u64 = 0x00CF_9A00_0000_FFFF;
pub(super) const CODE_16: u64 = 0x0000_9A00_0000_FFFF;
const CONFORMING: u64 = 0x00CF_9E00_0000_FFFF;
pub(super) const USER_CODE: u64 = 0x00CF_FA00_0000_FFFF;
pub(super) const DATA_32: u64 = 0x00CF_9200_0000_FFFF;
pub(super) const READ_ONLY: u64 = 0x00CF_9000_0000_FFFF;
const EXECUTE_ONLY: u64 = 0x00CF_9800_0000_FFFF;
const USER_DATA: u64 = 0x00CF_F200_0000_FFFF;
const TSS: u64 = 0x0000_8900_2000_0067;
const LDT: u64 = 0x0000_8200_3100_000F;
pub(super) const PRESENT: u64 = 1 << 47;
pub(super) const ACCESSED: u64 = 1 << 40;

/// A machine in flat protected mode, or in the moment after real mode, with this GDT behind a
/// null descriptor.
pub(super) fn protected(code: &[u8], descriptors: &[u64]) -> Machine {
    let mut machine = Machine::protected(code).set(Gpr::Rsp, DATA + 0x800);
    machine.cpu.gdtr.base = GDT;
    machine.cpu.gdtr.limit = (descriptors.len() * 8 + 7) as u16;
    for (index, descriptor) in (1..).zip(descriptors) {
        machine.bus.store(GDT + index * 8, 8, *descriptor);
    }
    machine
}

pub(super) fn general_protection(code: u32) -> Outcome {
    Outcome::Fault(Exception::with_code(13, code))
}

fn not_present(code: u32) -> Outcome {
    Outcome::Fault(Exception::with_code(11, code))
}

pub(super) fn segment(machine: &Machine, register: SegmentRegister) -> Segment {
    machine.cpu.segments[register as usize]
}

#[test]
fn real_mode_jumps_anywhere() {
    // jmp 0x1234:0x5678.
    let mut machine = Machine::real(&[0xEA, 0x78, 0x56, 0x34, 0x12]);
    assert_eq!(machine.run(), DONE);
    let cs = segment(&machine, SegmentRegister::Cs);
    assert_eq!((machine.cpu.rip, cs.selector, cs.base), (0x5678, 0x1234, 0x1_2340));
    assert_eq!(cs.limit, 0xFFFF);
}

#[test]
fn real_mode_calls_and_returns() {
    // callf [0x2000]; at 0x100:0x10, retf 2.
    let mut machine = Machine::real(&[0xFF, 0x1E, 0x00, 0x20]).set(Gpr::Rsp, 0x2804);
    machine.bus.store(DATA, 4, 0x0100_0010);
    machine.bus.store_bytes(CODE + 0x10, &[0xCA, 0x02, 0x00]);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (0x10, 0x2800));
    assert_eq!(machine.bus.load(0x2800, 4), CODE + 4);
    assert_eq!(segment(&machine, SegmentRegister::Cs).base, CODE);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (CODE + 4, 0x2806));
    assert_eq!(segment(&machine, SegmentRegister::Cs).base, 0);
}

#[test]
fn offsets_beyond_the_limit_fault_before_anything_is_pushed() {
    // 66: callf 0:0x10000.
    let mut machine = Machine::real(&[0x66, 0x9A, 0, 0, 1, 0, 0, 0]).set(Gpr::Rsp, 0x2804);
    let fault = Exception { error_code: None, ..Exception::GENERAL_PROTECTION };
    assert_eq!(machine.run(), Outcome::Fault(fault));
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (CODE, 0x2804));
}

#[test]
fn protected_mode_begins_with_a_far_jump() {
    // 66: jmp 8:0x1F_0000, from a 16-bit segment.
    let descriptors = [CODE_32];
    let code = [0x66, 0xEA, 0x00, 0x00, 0x1F, 0x00, 0x08, 0x00];
    let mut machine = protected(&code, &descriptors);
    let real = Machine::real(&[]).cpu;
    machine.cpu.segments = real.segments;
    machine.cpu.control.cr0 = cr0::PE;
    assert_eq!(machine.run(), DONE);
    let cs = segment(&machine, SegmentRegister::Cs);
    assert_eq!((machine.cpu.rip, cs.selector, cs.base, cs.limit), (0x1F_0000, 8, 0, u32::MAX));
    assert!(cs.attributes.default_big());
    assert_eq!(machine.bus.load(GDT + 8, 8), CODE_32 | ACCESSED);
}

#[test]
fn code_segments_are_checked() {
    // jmp selector:0x2000.
    let jump = |selector: u8, descriptor: u64| {
        let mut machine = protected(&[0xEA, 0, 0x20, 0, 0, selector, 0], &[descriptor]);
        let ldtr = machine.cpu.segment_mut(SegmentRegister::Ldtr);
        ldtr.attributes = ldtr.attributes.with_unusable(true);
        let before = machine.cpu.clone();
        let outcome = machine.run();
        assert!(outcome == DONE || machine.cpu == before);
        outcome
    };
    assert_eq!(jump(8, CODE_32), DONE);
    assert_eq!(jump(8, CONFORMING), DONE);
    assert_eq!(jump(0, CODE_32), general_protection(0));
    assert_eq!(jump(0x10, CODE_32), general_protection(0x10));
    assert_eq!(jump(0x0C, CODE_32), general_protection(0x0C), "there is no LDT");
    assert_eq!(jump(8, DATA_32), general_protection(8));
    assert_eq!(jump(8, USER_CODE), general_protection(8));
    assert_eq!(jump(0x0B, CODE_32), general_protection(8), "RPL above CPL");
    assert_eq!(jump(8, CODE_32 & !PRESENT), not_present(8));
    assert_eq!(jump(8, 0x0000_9A00_0000_1FFF), general_protection(0), "beyond its limit");
    let long = 0x0020_9A00_0000_1FFF;
    assert_eq!(jump(8, long), general_protection(0), "L says nothing outside long mode");
}

/// What hands a switch of tasks back, of an instruction of this length.
pub(super) fn to_task(selector: u16, source: TaskSwitchSource, length: u64) -> Outcome {
    let switch = TaskSwitch { selector, source, error_code: None };
    Outcome::Intercepted { exit: Exit::TaskSwitch(switch), next_rip: CODE + length }
}

#[test]
fn far_transfers_reach_tasks_and_task_gates() {
    const GATE: u64 = 0x0000_8500_0038_0000;
    const CALL_GATE: u64 = 0x0000_8C00_0008_0000;
    const USER: u64 = 3 << 45;
    let go = |opcode, selector: u8, descriptor: u64, cpl| {
        let mut machine = protected(&[opcode, 0, 0x20, 0, 0, selector, 0], &[descriptor]);
        machine.cpu.cpl = cpl;
        let before = machine.cpu.clone();
        let outcome = machine.run();
        assert!(machine.cpu == before);
        outcome
    };
    for (opcode, source) in [(0xEA, TaskSwitchSource::Jump), (0x9A, TaskSwitchSource::Call)] {
        assert_eq!(go(opcode, 8, TSS, 0), to_task(8, source, 7));
        assert_eq!(go(opcode, 8, TSS & !(8 << 40), 0), to_task(8, source, 7), "16 bits");
        assert_eq!(go(opcode, 8, GATE, 0), to_task(0x38, source, 7));
        assert_eq!(go(opcode, 8, GATE | USER, 3), to_task(0x38, source, 7));
        for target in [TSS, GATE] {
            assert_eq!(go(opcode, 8, target, 3), general_protection(8), "CPL");
            assert_eq!(go(opcode, 0x0B, target, 0), general_protection(8), "RPL");
            assert_eq!(go(opcode, 8, target & !PRESENT, 0), not_present(8));
        }
        assert_eq!(go(opcode, 8, TSS | 1 << 41, 0), general_protection(8), "busy");
        assert_eq!(go(opcode, 8, LDT, 0), general_protection(8));
        assert!(matches!(go(opcode, 8, CALL_GATE, 0), Outcome::Unsupported(_)));
    }
    // jmp far [0x2000] in long mode.
    let mut machine = Machine::long(&[0xFF, 0x2C, 0x25, 0, 0x20, 0, 0]);
    machine.cpu.gdtr = DescriptorTable { base: GDT, limit: 15 };
    machine.bus.store(DATA, 8, 8 << 32);
    for descriptor in [TSS, GATE] {
        machine.bus.store(GDT + 8, 8, descriptor);
        assert_eq!(machine.run(), general_protection(8));
    }
}

#[test]
fn data_segments_are_checked() {
    // mov es, ax.
    let load = |selector: u64, descriptor: u64| {
        let mut machine = protected(&[0x8E, 0xC0], &[descriptor]).set(Gpr::Rax, selector);
        (machine.run(), segment(&machine, SegmentRegister::Es))
    };
    let (outcome, es) = load(8, DATA_32);
    assert_eq!((outcome, es.selector, es.limit), (DONE, 8, u32::MAX));
    assert_eq!(load(8, READ_ONLY).0, DONE);
    assert_eq!(load(8, CODE_32).0, DONE);
    assert_eq!(load(0x0B, CONFORMING).0, DONE);
    assert_eq!(load(8, EXECUTE_ONLY).0, general_protection(8));
    assert_eq!(load(0x0B, DATA_32).0, general_protection(8));
    assert_eq!(load(0x0B, USER_DATA).0, DONE);
    assert_eq!(load(8, TSS).0, general_protection(8));
    assert_eq!(load(8, DATA_32 & !PRESENT).0, not_present(8));
    assert_eq!(load(0x10, DATA_32).0, general_protection(0x10));
    let (outcome, es) = load(3, DATA_32);
    assert_eq!(outcome, DONE);
    assert!(es.attributes.unusable() && es.selector == 3);
}

#[test]
fn the_stack_segment_is_checked_and_casts_a_shadow() {
    // mov ss, ax.
    let load = |selector: u64, descriptor: u64| {
        let mut machine = protected(&[0x8E, 0xD0], &[descriptor]).set(Gpr::Rax, selector);
        machine.cpu.rflags |= rflags::TF;
        (machine.run(), machine.cpu.shadow)
    };
    assert_eq!(load(8, DATA_32), (DONE, Some(InterruptShadow::MovSs)), "not stepped either");
    let fault = |code| (general_protection(code), None);
    assert_eq!(load(0, DATA_32), fault(0));
    assert_eq!(load(8, READ_ONLY), fault(8));
    assert_eq!(load(0x0B, DATA_32), fault(8));
    assert_eq!(load(8, USER_DATA), fault(8));
    assert_eq!(load(8, CODE_32), fault(8));
    let absent = Outcome::Fault(Exception::with_code(12, 8));
    assert_eq!(load(8, DATA_32 & !PRESENT), (absent, None));
}

#[test]
fn far_pointers_load_both_registers_or_none() {
    // lfs ecx, [0x2000].
    let code = [0x0F, 0xB4, 0x0D, 0x00, 0x20, 0x00, 0x00];
    let mut machine = protected(&code, &[DATA_32]);
    machine.bus.store(DATA, 8, 0x0008_CAFE_F00D);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rcx), 0xCAFE_F00D);
    assert_eq!(segment(&machine, SegmentRegister::Fs).selector, 8);
    let mut machine = protected(&code, &[DATA_32]);
    machine.bus.store(DATA, 8, 0x0020_CAFE_F00D);
    assert_eq!(machine.run(), general_protection(0x20));
    assert_eq!(machine.get(Gpr::Rcx), 0);
    // lds bx, [0x2000].
    let mut machine = Machine::real(&[0xC5, 0x1E, 0x00, 0x20]).set(Gpr::Rbx, 0xFFFF_0000);
    machine.bus.store(DATA, 4, 0xF000_1234);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rbx), 0xFFFF_1234);
    assert_eq!(segment(&machine, SegmentRegister::Ds).base, 0xF_0000);
}

#[test]
fn real_mode_keeps_what_protected_mode_left_in_the_hidden_parts() {
    // pop es.
    let mut machine = Machine::real(&[0x07]).set(Gpr::Rsp, DATA);
    machine.bus.store(DATA, 2, 0xB800);
    machine.cpu.segment_mut(SegmentRegister::Es).limit = u32::MAX;
    assert_eq!(machine.run(), DONE);
    let es = segment(&machine, SegmentRegister::Es);
    assert_eq!((es.base, es.limit), (0xB_8000, u32::MAX), "big real mode");
    // A register that was unusable gets what reset gives.
    let mut machine = Machine::real(&[0x07]).set(Gpr::Rsp, DATA);
    let es = machine.cpu.segment_mut(SegmentRegister::Es);
    *es = Segment { attributes: es.attributes.with_unusable(true), ..Segment::default() };
    assert_eq!(machine.run(), DONE);
    let es = segment(&machine, SegmentRegister::Es);
    assert_eq!((es.limit, u32::from(es.attributes)), (0xFFFF, 0x93));
}

#[test]
fn popping_the_stack_segment_uses_the_old_stack() {
    // pop ss, to a 16-bit stack.
    let small = 0x0000_9200_0000_FFFF;
    let mut machine = protected(&[0x17], &[small]).set(Gpr::Rsp, DATA);
    machine.bus.store(DATA, 4, 8);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rsp), DATA + 4);
    assert_eq!(machine.cpu.shadow, Some(InterruptShadow::MovSs));
}

#[test]
fn task_register_and_ldt_come_from_the_gdt() {
    // ltr ax.
    let load = |code: &[u8], selector: u64, descriptor: u64| {
        let mut machine = protected(code, &[descriptor]).set(Gpr::Rax, selector);
        let outcome = machine.run();
        (outcome, machine)
    };
    let (ltr, lldt) = (&[0x0F, 0x00, 0xD8], &[0x0F, 0x00, 0xD0]);
    let (outcome, machine) = load(ltr, 8, TSS);
    let tr = segment(&machine, SegmentRegister::Tr);
    assert_eq!((outcome, tr.base, tr.limit, tr.attributes.kind()), (DONE, 0x2000, 0x67, 11));
    assert_eq!(machine.bus.load(GDT + 8, 8), TSS | 1 << 41, "busy");
    assert_eq!(load(ltr, 8, TSS | 1 << 41).0, general_protection(8));
    assert_eq!(load(ltr, 0, TSS).0, general_protection(0));
    assert_eq!(load(ltr, 0x0C, TSS).0, general_protection(0x0C));
    assert_eq!(load(ltr, 8, TSS & !PRESENT).0, not_present(8));
    let (outcome, machine) = load(lldt, 8, LDT);
    let ldtr = segment(&machine, SegmentRegister::Ldtr);
    assert_eq!((outcome, ldtr.base, ldtr.limit), (DONE, 0x3100, 0xF));
    assert_eq!(load(lldt, 8, TSS).0, general_protection(8));
    let (outcome, machine) = load(lldt, 0, LDT);
    assert!(outcome == DONE && segment(&machine, SegmentRegister::Ldtr).attributes.unusable());
    let mut machine = protected(ltr, &[TSS]).set(Gpr::Rax, 8);
    machine.cpu.cpl = 3;
    assert_eq!(machine.run(), general_protection(0));
    let mut machine = Machine::real(ltr);
    assert_eq!(machine.run(), Outcome::Fault(Exception::INVALID_OPCODE));
}

#[test]
fn local_descriptors_come_from_the_ldt() {
    // mov es, ax.
    let mut machine = protected(&[0x8E, 0xC0], &[LDT]).set(Gpr::Rax, 0x0C);
    *machine.cpu.segment_mut(SegmentRegister::Ldtr) =
        Segment { base: DATA, limit: 0xF, ..machine.cpu.segments[0] };
    machine.bus.store(DATA + 8, 8, DATA_32);
    assert_eq!(machine.run(), DONE);
    assert_eq!(segment(&machine, SegmentRegister::Es).selector, 0x0C);
    machine.cpu.rip = CODE;
    machine.cpu.segment_mut(SegmentRegister::Ldtr).limit = 0xE;
    assert_eq!(machine.run(), general_protection(0x0C));
}

#[test]
fn programs_can_ask_about_segments() {
    // The instruction with selector 8 in AX; ZF and ECX afterwards.
    let ask = |code: &[u8], descriptor: u64, cpl: u8| {
        let mut machine = protected(code, &[descriptor]).set(Gpr::Rax, 8);
        machine.cpu.cpl = cpl;
        assert_eq!(machine.run(), DONE);
        (machine.cpu.rflags & rflags::ZF != 0, machine.get(Gpr::Rcx))
    };
    let (verr, verw) = (&[0x0F, 0x00, 0xE0], &[0x0F, 0x00, 0xE8]);
    assert!(ask(verr, CODE_32, 0).0 && !ask(verr, EXECUTE_ONLY, 0).0);
    assert!(ask(verw, DATA_32, 0).0 && !ask(verw, READ_ONLY, 0).0 && !ask(verw, CODE_32, 0).0);
    assert!(!ask(verr, DATA_32, 3).0 && ask(verr, CONFORMING, 3).0);
    let (lar, lsl) = (&[0x0F, 0x02, 0xC8], &[0x0F, 0x03, 0xC8]);
    assert_eq!(ask(lar, DATA_32, 0), (true, 0x00C0_9200));
    assert_eq!(ask(lsl, DATA_32, 0), (true, 0xFFFF_FFFF));
    assert_eq!(ask(lsl, TSS, 0), (true, 0x67));
    let gate = 0x0000_8E00_0008_0000;
    assert_eq!((ask(lar, gate, 0), ask(lsl, gate, 0)), ((false, 0), (false, 0)));
    for (kind, legacy, long) in [(1, 3, 0), (2, 3, 3), (3, 3, 0), (4, 1, 0), (5, 1, 0), (6, 0, 0)]
        .into_iter()
        .chain([(9, 3, 3), (11, 3, 3), (12, 1, 1), (14, 0, 0)])
    {
        let descriptor = 0x0000_8000_2000_0067 | kind << 40;
        let found = |build: fn(&[u8]) -> Machine| {
            [lar, lsl].into_iter().rev().fold(0, |found, code| {
                let mut machine = build(code).set(Gpr::Rax, 8);
                machine.cpu.gdtr = DescriptorTable { base: GDT, limit: 0xF };
                machine.bus.store(GDT + 8, 8, descriptor);
                assert_eq!(machine.run(), DONE);
                found << 1 | u64::from(machine.cpu.rflags & rflags::ZF != 0)
            })
        };
        let answers = (found(Machine::protected), found(Machine::long));
        assert_eq!(answers, (legacy, long), "LAR and, twice as much, LSL of type {kind}");
    }
    let mut machine = Machine::real(lar);
    assert_eq!(machine.run(), Outcome::Fault(Exception::INVALID_OPCODE));
}
