// SPDX-License-Identifier: MIT OR Apache-2.0
//! What reaches the bus: widths, order, atomicity, devices.

use super::machine::{CODE, DATA, DEVICE, DEVICE_VALUE, Event, Machine};
use crate::access::AccessWidth::{Byte, Dword, Qword, Word};
use crate::emulate::Outcome;
use crate::state::Gpr;
use crate::state::rflags::{CF, ZF};

const DONE: Outcome = Outcome::Done { debug_trap: false };

#[test]
fn device_accesses_have_the_width_of_the_operand() {
    let cases: [(&[u8], Event); 8] = [
        (&[0x88, 0x03], Event::Write(DEVICE, Byte, 0x44)),
        (&[0x66, 0x89, 0x03], Event::Write(DEVICE, Word, 0x3344)),
        (&[0x89, 0x03], Event::Write(DEVICE, Dword, 0x1122_3344)),
        (&[0x48, 0x89, 0x03], Event::Write(DEVICE, Qword, 0x1122_3344)),
        (&[0x0F, 0xB6, 0x0B], Event::Read(DEVICE, Byte)),
        (&[0x0F, 0xB7, 0x0B], Event::Read(DEVICE, Word)),
        (&[0xF7, 0x03, 1, 0, 0, 0], Event::Read(DEVICE, Dword)),
        (&[0x48, 0x8B, 0x0B], Event::Read(DEVICE, Qword)),
    ];
    for (code, event) in cases {
        let mut machine = Machine::long(code).set(Gpr::Rbx, DEVICE).set(Gpr::Rax, 0x1122_3344);
        assert_eq!(machine.run(), DONE, "{code:x?}");
        assert_eq!(machine.bus.log, [event], "{code:x?}");
    }
}

#[test]
fn a_misaligned_device_access_stays_whole_within_a_page() {
    let mut machine = Machine::long(&[0x8B, 0x03]).set(Gpr::Rbx, DEVICE + 1);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.log, [Event::Read(DEVICE + 1, Dword)]);
    assert_eq!(machine.get(Gpr::Rax), DEVICE_VALUE & 0xFFFF_FFFF);
}

#[test]
fn an_access_across_pages_is_cut_into_aligned_ones() {
    // mov [rbx], rax from RAM, 3 bytes before its end, into the device.
    let mut machine = Machine::long(&[0x48, 0x89, 0x03]).set(Gpr::Rbx, DATA + 0x1FFD);
    machine.bus.map(DATA + 0x2000, DEVICE, 7);
    machine.cpu.gprs[Gpr::Rax as usize] = 0x8877_6655_4433_2211;
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA + 0x1FFD, 3), 0x33_2211);
    let events = [Event::Write(DEVICE, Dword, 0x7766_5544), Event::Write(DEVICE + 4, Byte, 0x88)];
    assert_eq!(machine.bus.log, events);
}

#[test]
fn read_modify_write_of_a_device_reads_then_writes() {
    // or dword [rbx], 0x10; lock or dword [rbx], 0x10; xchg [rbx], eax.
    let written = [DEVICE_VALUE | 0x10, DEVICE_VALUE | 0x10, 7].map(|value| value & 0xFFFF_FFFF);
    let codes: [&[u8]; 3] = [&[0x83, 0x0B, 0x10], &[0xF0, 0x83, 0x0B, 0x10], &[0x87, 0x03]];
    for (code, value) in codes.into_iter().zip(written) {
        let mut machine = Machine::long(code).set(Gpr::Rbx, DEVICE).set(Gpr::Rax, 7);
        assert_eq!(machine.run(), DONE);
        let events = [Event::Read(DEVICE, Dword), Event::Write(DEVICE, Dword, value)];
        assert_eq!(machine.bus.log, events);
    }
}

#[test]
fn locked_instructions_are_atomic_in_ram_and_others_are_not() {
    // lock inc dword [rbx]; inc dword [rbx]; xchg [rbx], eax.
    let cases: [(&[u8], bool); 3] =
        [(&[0xF0, 0xFF, 0x03], true), (&[0xFF, 0x03], false), (&[0x87, 0x03], true)];
    for (code, atomic) in cases {
        let mut machine = Machine::long(code).set(Gpr::Rbx, DATA);
        assert_eq!(machine.run(), DONE);
        assert_eq!(machine.bus.log == [Event::Exchange(DATA, Dword)], atomic, "{code:x?}");
    }
}

#[test]
fn a_locked_instruction_sees_the_value_another_cpu_wrote() {
    // lock xadd [rbx], eax, while another CPU stores 41.
    let mut machine = Machine::long(&[0xF0, 0x0F, 0xC1, 0x03]).set(Gpr::Rbx, DATA);
    machine.cpu.gprs[Gpr::Rax as usize] = 1;
    machine.bus.interference = Some((1, 41));
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA, 4), 42);
    assert_eq!(machine.get(Gpr::Rax), 41);
}

#[test]
fn endless_contention_lets_the_guest_run() {
    // Another CPU counts up in between each time.
    let mut machine = Machine::long(&[0xF0, 0xFF, 0x03]).set(Gpr::Rbx, DATA);
    machine.bus.interference = Some((u32::MAX, 1));
    machine.bus.counting = true;
    let before = machine.cpu.clone();
    assert_eq!(machine.run(), Outcome::Repeat { debug_trap: false });
    assert_eq!(machine.cpu, before);
}

#[test]
fn compare_exchange_pairs_are_atomic_and_set_only_the_zero_flag() {
    // lock cmpxchg16b [rbx], first differing, then equal.
    let mut machine =
        Machine::long(&[0xF0, 0x48, 0x0F, 0xC7, 0x0B]).set(Gpr::Rbx, DATA).set(Gpr::Rcx, 0x22);
    machine.bus.store(DATA, 8, 0xAAAA);
    machine.bus.store(DATA + 8, 8, 0xBBBB);
    machine.cpu.rflags |= ZF | CF;
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.get(Gpr::Rax), machine.get(Gpr::Rdx)), (0xAAAA, 0xBBBB));
    assert_eq!(machine.cpu.rflags & (ZF | CF), CF);
    machine.cpu.rip = CODE;
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.bus.load(DATA, 8), machine.bus.load(DATA + 8, 8)), (DATA, 0x22));
    assert_eq!(machine.cpu.rflags & (ZF | CF), CF | ZF);
}

#[test]
fn stack_instructions_with_memory_operands() {
    // push qword [rbx]; pop qword [rsp + 8]: addressed with RSP after the pop.
    let mut machine = Machine::long(&[0xFF, 0x33, 0x8F, 0x44, 0x24, 0x08])
        .set(Gpr::Rbx, DATA)
        .set(Gpr::Rsp, DATA + 0x100);
    machine.bus.store(DATA, 8, 0x1234);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.load(DATA + 0xF8, 8), 0x1234);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rsp), DATA + 0x100);
    assert_eq!(machine.bus.load(DATA + 0x108, 8), 0x1234);
}

#[test]
fn near_branches_through_memory() {
    // call [rbx]; jmp [rbx].
    let mut machine = Machine::long(&[0xFF, 0x13]).set(Gpr::Rbx, DATA).set(Gpr::Rsp, DATA + 0x100);
    machine.bus.store(DATA, 8, CODE + 0x40);
    machine.bus.store_bytes(CODE + 0x40, &[0xFF, 0x23]);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (CODE + 0x40, DATA + 0xF8));
    assert_eq!(machine.bus.load(DATA + 0xF8, 8), CODE + 2);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (CODE + 0x40, DATA + 0xF8));
}

#[test]
fn scans_of_zero_keep_the_destination() {
    let mut machine = Machine::long(&[0x0F, 0xBC, 0x03]).set(Gpr::Rbx, DATA);
    machine.cpu.gprs[Gpr::Rax as usize] = 0x1_0000_0005;
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rax), 0x1_0000_0005);
    assert_eq!(machine.cpu.rflags & ZF, ZF);
}

#[test]
fn hints_do_nothing_and_flushes_check_their_address() {
    // nop [rbx]; prefetcht0 [rbx]: no access even where nothing is mapped; clflush: a read.
    for code in [&[0x0F, 0x1F, 0x03][..], &[0x0F, 0x18, 0x0B]] {
        assert_eq!(Machine::long(code).set(Gpr::Rbx, 0x9000).run(), DONE);
    }
    let flush = |address| Machine::long(&[0x0F, 0xAE, 0x3B]).set(Gpr::Rbx, address).run();
    assert_eq!(flush(DATA), DONE);
    assert!(matches!(flush(0x9000), Outcome::Fault(_)));
}
