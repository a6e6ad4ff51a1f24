// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random instructions of user mode, beside a kernel that has its tables in pages of its own: user
//! mode gains nothing, whatever the emulator is led to execute.

use super::hostile::code;
use super::machine::{
    DATA, Event, Machine, TestBus, TestCpu, code as code_segment, data as data_segment, flat,
};
use super::random::Random;
use crate::emulate::Outcome;
use crate::state::{
    DescriptorTable, Gpr, Segment, SegmentAttributes, SegmentRegister, cr0, cr4, efer, rflags,
};
use crate::{AccessWidth, Exit, GuestVirtAddr, Trapped};

/// Where the kernel has its tables. At the lower half of that address user mode has a page that
/// looks like them, but grants everything.
const KERNEL: u64 = 0xFFFF_8000_0000_3000;
const FORGED: u64 = 0x3000;
/// The kernel's page in guest-physical memory.
const FRAME: u64 = 0x5000;

/// Offsets in either page.
const GDT: usize = 0;
const TASK: usize = 0x400;
/// Offset in the TSS.
const IO_MAP: usize = 0x68;

/// The only port that the kernel lets user mode access.
const PORT: u16 = 0x80;

/// Flags that are not user mode's with IOPL 0: IF, IOPL, VM, VIF and VIP.
const PRIVILEGED_FLAGS: u64 = rflags::IF | rflags::IOPL | rflags::VM | 3 << 19;

const DATA_SEGMENTS: [SegmentRegister; 5] = [
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Es,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
];

/// Descriptors behind the null descriptor: code and data of the kernel, and of user mode in all
/// sizes; conforming code, and some that user mode must not load.
const DESCRIPTORS: [u64; 12] = [
    0x00AF_9B00_0000_FFFF,
    0x00CF_9300_0000_FFFF,
    0x00AF_FB00_0000_FFFF,
    0x00CF_FA00_0000_FFFF,
    0x00CF_F300_0000_FFFF,
    0x0000_FB00_0000_0FFF,
    0x00CF_9F00_0000_FFFF,
    0x00CF_9700_0000_FFFF,
    0x0000_8900_2000_0067,
    0x0000_EC00_0008_0000,
    0x0000_E500_0048_0000,
    0x00CF_7300_0000_FFFF,
];

/// Selectors of user mode's code.
const USER_CODE_64: u64 = 0x1B;
const USER_CODE_32: u64 = 0x23;

/// Opcodes of which much can be gained.
const TEMPTING: [&[u8]; 30] = [
    &[0xCB],
    &[0xCA, 0x10, 0x00],
    &[0x48, 0xCB],
    &[0xCF],
    &[0x9D],
    &[0x9C],
    &[0x8E],
    &[0x8C],
    &[0x1F],
    &[0x07],
    &[0x17],
    &[0x0F, 0xA1],
    &[0x0F, 0xA9],
    &[0xC4],
    &[0xC5],
    &[0x0F, 0xB2],
    &[0x0F, 0xB4],
    &[0x0F, 0x00],
    &[0x0F, 0x01],
    &[0x0F, 0x20],
    &[0x0F, 0x22],
    &[0x0F, 0x23],
    &[0xFF],
    &[0xEC],
    &[0xEE],
    &[0x6C],
    &[0x6E],
    &[0xFB],
    &[0xFA],
    &[0xF4],
];

/// A page of tables. The I/O permission map has `ports` in every byte but the one of [`PORT`].
fn tables(ports: u8) -> [u8; 0x1000] {
    let mut page = [0; 0x1000];
    let descriptors = page[GDT + 8..].chunks_exact_mut(8);
    for (to, descriptor) in descriptors.zip(DESCRIPTORS) {
        to.copy_from_slice(&descriptor.to_le_bytes());
    }
    let task = &mut page[TASK..];
    task[102] = IO_MAP as u8;
    task[IO_MAP..IO_MAP + 0x200].fill(ports);
    task[IO_MAP + usize::from(PORT) / 8] = 0xFE;
    page
}

/// A value for a register or on the stack: an address, a selector, or anything.
fn value(random: &mut Random) -> u64 {
    match random.below(5) {
        0 => DATA + random.below(0x2000),
        1 => KERNEL + random.below(0x1000),
        2 => FORGED + random.below(0x1000),
        3 => random.below(0x80) | 3,
        _ => random.operand(),
    }
}

/// The first page of data, and in it a place for the stack pointer, where sometimes lies what a
/// far return takes.
fn stack(random: &mut Random) -> ([u8; 0x1000], u64) {
    let mut page = [0; 0x1000];
    for to in page.chunks_exact_mut(32) {
        to[..8].copy_from_slice(&value(random).to_le_bytes());
    }
    let top = random.below(0x100) as usize * 8;
    if random.chance(2) {
        let any = (1 + random.below(DESCRIPTORS.len() as u64)) << 3 | 3;
        let selector = *random.pick(&[any, USER_CODE_64, USER_CODE_32]);
        let size = *random.pick(&[2, 4, 8]);
        page[top..top + 8].copy_from_slice(&random.operand().to_le_bytes());
        page[top + size..top + size + 8].copy_from_slice(&selector.to_le_bytes());
    }
    (page, DATA + top as u64)
}

/// User mode in 64-bit mode, compatibility mode, or protected mode without paging.
fn machine(random: &mut Random, code: &[u8]) -> Machine {
    const USER: u64 = 7;
    const SUPERVISOR: u64 = 3;
    let mut machine = if random.chance(4) { Machine::protected(code) } else { Machine::long(code) };
    let bus = &mut machine.bus;
    bus.add(FRAME);
    bus.map(KERNEL, FRAME, SUPERVISOR);
    bus.map(FORGED, FORGED, USER);
    bus.store_bytes(FRAME, &tables(0xFF));
    bus.store_bytes(FORGED, &tables(0));
    let (page, top) = stack(random);
    bus.store_bytes(DATA, &page);
    let cpu = &mut machine.cpu;
    for register in &mut cpu.gprs {
        *register = value(random);
    }
    cpu.gprs[Gpr::Rsp as usize] = top;
    cpu.rflags = random.bits() & !(PRIVILEGED_FLAGS | rflags::RF) & 0x3F_7FD5 | rflags::FIXED;
    cpu.rflags |= if random.chance(2) { rflags::IF } else { 0 };
    cpu.control.cr4 |= cr4::UMIP | cr4::SMEP;
    cpu.control.cr0 |= cr0::AM;
    cpu.cpl = 3;
    let is_long = cpu.control.efer & efer::LMA != 0;
    let attributes = code_segment().with_dpl(3);
    *cpu.segment_mut(SegmentRegister::Cs) = if is_long && random.chance(2) {
        Segment {
            selector: USER_CODE_64 as u16,
            ..flat(attributes.with_long(true).with_default_big(false))
        }
    } else {
        Segment { selector: USER_CODE_32 as u16, ..flat(attributes) }
    };
    for register in DATA_SEGMENTS {
        *cpu.segment_mut(register) = Segment { selector: 0x2B, ..flat(data_segment().with_dpl(3)) };
    }
    // Without paging nothing keeps user mode from the tables.
    let base = if is_long { KERNEL } else { FRAME };
    cpu.gdtr = DescriptorTable { base, limit: 8 * (DESCRIPTORS.len() as u16 + 1) - 1 };
    cpu.idtr = DescriptorTable { base: base + 0xE00, limit: 0x1FF };
    let task = SegmentAttributes::new().with_kind(11).with_present(true);
    *cpu.segment_mut(SegmentRegister::Tr) =
        Segment { base: base + TASK as u64, limit: 0xFF, ..flat(task) };
    cpu.segment_mut(SegmentRegister::Ldtr).attributes =
        SegmentAttributes::new().with_unusable(true);
    machine
}

fn instruction(random: &mut Random) -> [u8; 15] {
    let mut bytes = code(random).to_vec();
    if random.chance(2) {
        for byte in random.pick(&TEMPTING).iter().rev() {
            bytes.insert(0, *byte);
        }
        if random.chance(4) {
            bytes.insert(0, *random.pick(&[0x66, 0x67, 0xF2, 0xF3, 0x48]));
        }
    }
    let mut code = [0; 15];
    code.copy_from_slice(&bytes[..15]);
    code
}

/// What hardware hands to the VMM of user mode, too; the VMM looks at the privilege level. To other
/// tasks lead a gate that is user mode's, and an IRET with NT.
fn may_be_handed_back(exit: Exit) -> bool {
    match exit {
        Exit::Cpuid | Exit::Hypercall | Exit::SetExtendedControl | Exit::TaskSwitch(_) => true,
        Exit::Instruction(trapped) => !matches!(trapped, Trapped::CacheFlush),
        _ => false,
    }
}

/// Nothing of the CPU is the kernel's that user mode had not before.
fn check_cpu(cpu: &TestCpu, before: &TestCpu, what: &str) {
    let kept = |cpu: &TestCpu| {
        let system = [SegmentRegister::Tr, SegmentRegister::Ldtr];
        let system = system.map(|register| cpu.segments[register as usize]);
        let flags = cpu.rflags & PRIVILEGED_FLAGS;
        (cpu.control, cpu.cpl, cpu.gdtr, cpu.idtr, cpu.debug, system, flags)
    };
    assert_eq!(kept(cpu), kept(before), "{what}");
    let segment = |register| cpu.segments[register as usize];
    let conforms = |attributes: SegmentAttributes| attributes.kind() & 0xC == 0xC;
    let cs = segment(SegmentRegister::Cs);
    assert!(cs.selector & 3 == 3 && cs.attributes.present(), "{what}");
    assert!(cs.attributes.dpl() == 3 || conforms(cs.attributes), "{what}");
    let is_64_bit = cpu.control.efer & efer::LMA != 0 && cs.attributes.long();
    let rip = GuestVirtAddr::new(cpu.rip);
    assert!(if is_64_bit { rip.is_canonical() } else { cpu.rip >> 32 == 0 }, "{what}");
    for register in DATA_SEGMENTS {
        let (now, is_stack) = (segment(register).attributes, register == SegmentRegister::Ss);
        let harmless = now.unusable() || now.dpl() == 3 || conforms(now);
        assert!(if is_stack { now.dpl() == 3 } else { harmless }, "{register:?}: {what}");
    }
}

/// Only the one port was reached, and the kernel's page is as it was: but for the marks of segments
/// that were loaded.
fn check_bus(bus: &TestBus, is_paged: bool, what: &str) {
    for event in &bus.log {
        if let Event::In(port, size) | Event::Out(port, size, _) = *event {
            assert!(port == PORT && size == AccessWidth::Byte, "{event:?}: {what}");
        }
    }
    if is_paged {
        let [now, expected] = [bus.page(FRAME), tables(0xFF)].map(|mut page| {
            page[GDT + 5..TASK].iter_mut().step_by(8).for_each(|rights| *rights |= 1);
            page
        });
        assert!(now == expected, "{what}");
    }
}

#[test]
fn user_mode_gains_nothing() {
    let mut random = Random::new(0x05E7);
    let (mut done, mut faults) = (0, 0);
    const ROUNDS: u32 = 20_000;
    for _ in 0..ROUNDS {
        let code = instruction(&mut random);
        let mut machine = machine(&mut random, &code);
        let before = machine.cpu.clone();
        let outcome = machine.run();
        let what = format!("{code:02x?} {outcome:x?}");
        match outcome {
            Outcome::Intercepted { exit, .. } => assert!(may_be_handed_back(exit), "{what}"),
            Outcome::Done { .. } => done += 1,
            Outcome::Fault(_) => faults += 1,
            _ => {}
        }
        check_cpu(&machine.cpu, &before, &what);
        check_bus(&machine.bus, before.control.cr0 & cr0::PG != 0, &what);
    }
    assert!(done > ROUNDS / 5 && faults > ROUNDS / 5, "{done} done, {faults} faults");
}
