// SPDX-License-Identifier: MIT OR Apache-2.0
//! System instructions, flags and stack frames.

use super::far::{DONE, general_protection};
use super::machine::{CODE, DATA, Machine};
use crate::emulate::Outcome;
use crate::state::{DescriptorTable, Exception, Gpr, InterruptShadow, cr0, cr4, rflags};
use crate::{ControlRegisterAccess, Exit, Trapped};

const UNDEFINED: Outcome = Outcome::Fault(Exception::INVALID_OPCODE);

fn intercepted(code: &[u8]) -> Option<Exit> {
    let mut machine = Machine::protected(code).set(Gpr::Rbx, DATA);
    let before = machine.cpu.clone();
    let outcome = machine.run();
    assert_eq!(machine.cpu, before);
    match outcome {
        Outcome::Intercepted { exit, next_rip } => {
            assert_eq!(next_rip, CODE + code.len() as u64);
            Some(exit)
        }
        _ => None,
    }
}

#[test]
fn what_needs_the_policy_is_handed_back() {
    use ControlRegisterAccess::{ClearTaskSwitched, LoadMachineStatus, Read, Write};
    let write = Write { register: 3, source: Some(Gpr::Rdx) };
    let read = Read { register: 0, target: Some(Gpr::Rdi) };
    for (code, exit) in [
        (&[0x0F, 0xA2][..], Exit::Cpuid),
        (&[0xF4], Exit::Halt),
        (&[0x0F, 0x32], Exit::ReadMsr),
        (&[0x0F, 0x30], Exit::WriteMsr),
        (&[0x0F, 0x09], Exit::Instruction(Trapped::CacheFlush)),
        (&[0x0F, 0x08], Exit::Instruction(Trapped::CacheFlush)),
        (&[0x0F, 0x01, 0x3B], Exit::InvalidatePage { address: Some(DATA) }),
        (&[0x0F, 0x33], Exit::Instruction(Trapped::ReadPerformanceCounter)),
        (&[0x0F, 0x06], Exit::ControlRegister(ClearTaskSwitched)),
        (&[0x0F, 0x22, 0xDA], Exit::ControlRegister(write)),
        (&[0x0F, 0x20, 0xC7], Exit::ControlRegister(read)),
        (&[0x0F, 0x01, 0xF0], Exit::ControlRegister(LoadMachineStatus(0))),
        (&[0x0F, 0x01, 0xC1], Exit::Hypercall),
    ] {
        assert_eq!(intercepted(code), Some(exit), "{code:02x?}");
    }
}

#[test]
fn user_mode_may_not_do_what_is_privileged() {
    for code in [
        &[0xF4][..],
        &[0x0F, 0x32],
        &[0x0F, 0x30],
        &[0x0F, 0x09],
        &[0x0F, 0x06],
        &[0x0F, 0x22, 0xDA],
        &[0x0F, 0x20, 0xC7],
        &[0x0F, 0x01, 0xF0],
        &[0x0F, 0x01, 0x13],
        &[0x0F, 0x01, 0x1B],
        &[0x0F, 0x01, 0x3B],
        &[0x0F, 0x23, 0xC0],
        &[0x0F, 0x21, 0xC0],
        &[0x0F, 0x00, 0xD0],
        &[0x0F, 0x00, 0xD8],
        &[0xFA],
        &[0xFB],
    ] {
        let mut machine = Machine::protected(code).set(Gpr::Rbx, DATA);
        machine.cpu.cpl = 3;
        let before = machine.cpu.clone();
        assert_eq!(machine.run(), general_protection(0), "{code:02x?}");
        assert_eq!(machine.cpu, before);
    }
}

#[test]
fn descriptor_tables_are_loaded_and_stored() {
    // lgdt [bx], with 16-bit operands.
    let mut machine = Machine::real(&[0x0F, 0x01, 0x17]).set(Gpr::Rbx, DATA);
    machine.bus.store(DATA, 8, 0x1234_5678_002F);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.cpu.gdtr, DescriptorTable { base: 0x34_5678, limit: 0x2F });
    // 66: lidt [bx].
    let mut machine = Machine::real(&[0x66, 0x0F, 0x01, 0x1F]).set(Gpr::Rbx, DATA);
    machine.bus.store(DATA, 8, 0x1234_5678_002F);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.cpu.idtr, DescriptorTable { base: 0x1234_5678, limit: 0x2F });
    // sidt [rbx].
    let mut machine = Machine::long(&[0x0F, 0x01, 0x0B]).set(Gpr::Rbx, DATA);
    machine.cpu.idtr = DescriptorTable { base: 0xFFFF_8000_1234_5678, limit: 0xFFF };
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA, 2), 0xFFF);
    assert_eq!(machine.bus.load(DATA + 2, 8), 0xFFFF_8000_1234_5678);
    machine.cpu.rip = CODE;
    machine.cpu.cpl = 3;
    machine.cpu.control.cr4 |= cr4::UMIP;
    assert_eq!(machine.run(), general_protection(0));
}

#[test]
fn machine_status_and_time_are_read() {
    // smsw ax.
    let mut machine = Machine::real(&[0x0F, 0x01, 0xE0]).set(Gpr::Rax, 0xAAAA_AAAA);
    machine.cpu.control.cr0 = cr0::ET | cr0::CD;
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rax), 0xAAAA_0010);
    // rdtsc.
    let mut machine = Machine::protected(&[0x0F, 0x31]);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.get(Gpr::Rdx), machine.get(Gpr::Rax)), (0x1122, 0x3344_5566));
    machine.cpu.rip = CODE;
    machine.cpu.cpl = 3;
    machine.cpu.control.cr4 |= cr4::TSD;
    assert_eq!(machine.run(), general_protection(0));
}

#[test]
fn debug_registers_keep_their_reserved_bits() {
    let write = |code: &[u8], value: u64| {
        let mut machine = Machine::protected(code).set(Gpr::Rax, value);
        let outcome = machine.run();
        (outcome, machine.cpu.debug)
    };
    let (outcome, debug) = write(&[0x0F, 0x23, 0xD8], 0x1234);
    assert_eq!((outcome, debug[3]), (DONE, 0x1234));
    assert_eq!(write(&[0x0F, 0x23, 0xF0], u64::MAX).1[6], 0xFFFF_EFFF);
    assert_eq!(write(&[0x0F, 0x23, 0xE0], 0).1[6], 0xFFFF_0FF0, "DR4 is DR6");
    assert_eq!(write(&[0x0F, 0x23, 0xF8], 0).1[7], 0x400);
    let mut machine = Machine::protected(&[0x0F, 0x23, 0xE0]);
    machine.cpu.control.cr4 |= cr4::DE;
    assert_eq!(machine.run(), UNDEFINED);
    let mut machine = Machine::protected(&[0x0F, 0x21, 0xC0]);
    machine.cpu.debug[7] = 0x2400;
    assert_eq!(machine.run(), Outcome::Fault(Exception::DEBUG));
    assert_eq!((machine.cpu.debug[6], machine.cpu.debug[7]), (0x2000, 0x400));
}

#[test]
fn interrupts_stay_off_for_an_instruction_after_sti() {
    let mut machine = Machine::real(&[0xFB, 0x90, 0xFB, 0xFA]);
    let mut step = || {
        assert_eq!(machine.run(), DONE);
        (machine.cpu.shadow, machine.cpu.rflags & rflags::IF != 0)
    };
    assert_eq!(step(), (Some(InterruptShadow::Sti), true));
    assert_eq!(step(), (None, true));
    assert_eq!(step(), (None, true), "they were on already");
    assert_eq!(step(), (None, false));
}

#[test]
fn popf_that_sets_the_trap_flag_is_not_trapped_itself() {
    // popf; nop; popf.
    let mut machine = Machine::real(&[0x9D, 0x90, 0x9D]).set(Gpr::Rsp, DATA);
    machine.bus.store(DATA, 4, 0x0000_0102);
    assert_eq!(machine.run(), DONE);
    assert_ne!(machine.cpu.rflags & rflags::TF, 0);
    assert_eq!(machine.run(), Outcome::Done { debug_trap: true });
    assert_eq!(machine.run(), Outcome::Done { debug_trap: true }, "it was set at the start");
    assert_eq!(machine.cpu.rflags & rflags::TF, 0);
}

#[test]
fn flags_are_loaded_as_the_privilege_level_allows() {
    let all = 0x3F_7FD5;
    let load = |cpl, before| {
        let mut machine = Machine::protected(&[0x9D]).set(Gpr::Rsp, DATA);
        machine.cpu.cpl = cpl;
        machine.cpu.rflags = before;
        machine.bus.store(DATA, 4, all);
        assert_eq!(machine.run(), DONE);
        machine.cpu.rflags
    };
    let never = rflags::VM | rflags::RF | 3 << 19;
    let fixed = rflags::FIXED;
    assert_eq!(load(0, fixed), all & !never | fixed);
    assert_eq!(load(3, fixed), all & !never & !(rflags::IF | rflags::IOPL) | fixed);
    let open = fixed | rflags::IOPL;
    assert_eq!(load(3, open), all & !never | fixed);
}

#[test]
fn frames_nest() {
    // enter 0x10, 3 in 16-bit code; then leave.
    let mut machine = Machine::real(&[0xC8, 0x10, 0x00, 0x03, 0xC9])
        .set(Gpr::Rsp, DATA + 0x100)
        .set(Gpr::Rbp, DATA + 0x200);
    machine.bus.store(DATA + 0x1FC, 4, 0x1111_2222);
    assert_eq!(machine.run(), DONE);
    let frame = DATA + 0xFE;
    assert_eq!((machine.get(Gpr::Rbp), machine.get(Gpr::Rsp)), (frame, frame - 6 - 0x10));
    let pushed: Vec<u64> = (0..4).map(|n| machine.bus.load(frame - 2 * n, 2)).collect();
    assert_eq!(pushed, [DATA + 0x200, 0x1111, 0x2222, frame]);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.get(Gpr::Rbp), machine.get(Gpr::Rsp)), (DATA + 0x200, DATA + 0x100));
}

#[test]
fn all_registers_are_pushed_and_popped() {
    // pusha; popa.
    let mut machine = Machine::real(&[0x60, 0x61]).set(Gpr::Rsp, DATA + 0x100);
    for (register, value) in [Gpr::Rax, Gpr::Rcx, Gpr::Rdx, Gpr::Rbx].into_iter().zip(1..) {
        machine.cpu.gprs[register as usize] = value;
    }
    let before = machine.cpu.gprs;
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA + 0xF8, 8), 0x0001_0002_0003_0004);
    assert_eq!(machine.bus.load(DATA + 0xF6, 2), DATA + 0x100);
    machine.cpu.gprs = [0xFFFF_0000; 16];
    machine.cpu.gprs[Gpr::Rsp as usize] = DATA + 0xF0;
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rbx), 0xFFFF_0004);
    assert_eq!(machine.get(Gpr::Rsp), before[Gpr::Rsp as usize]);
}
