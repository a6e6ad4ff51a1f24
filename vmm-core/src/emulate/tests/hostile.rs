// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines in states, and instructions, that only a hostile guest would have.

use super::machine::{DATA, Machine, TestBus, TestCpu, flat};
use super::random::Random;
use crate::PAGE_SIZE;
use crate::emulate::{Departure, Outcome, deliver, emulate, instruction_length, switch_task};
use crate::exit::{Event, TaskSwitch, TaskSwitchSource};
use crate::state::{
    DescriptorTable, Exception, SegmentAttributes, SegmentRegister, Vector, cr0, cr4, efer, rflags,
};

/// Accesses to memory and ports that one step of the emulator may make: a repeated string
/// instruction is cut off after a page of single bytes, each of which may be a move from one
/// place to another. The rest is for walks of page tables and for descriptors.
const MOST_ACCESSES: u64 = PAGE_SIZE * 2 * 5 + 1024;

/// Where random descriptor tables are: in the pages of data.
const TABLES: u64 = DATA;

/// A machine in a random mode, with registers that sometimes point to memory.
pub fn machine(random: &mut Random, code: &[u8]) -> Machine {
    let mut machine = match random.below(3) {
        0 => Machine::long(code),
        1 => Machine::protected(code),
        _ => Machine::real(code),
    };
    let cpu = &mut machine.cpu;
    for register in &mut cpu.gprs {
        *register = if random.chance(2) { DATA + random.below(0x2010) } else { random.operand() };
    }
    cpu.rflags = random.bits() & 0x3F_7FD5 | rflags::FIXED;
    cpu.cpl = random.below(4) as u8;
    if random.chance(4) {
        disturb(random, cpu);
    }
    machine
}

/// State that only a hostile guest, or a confused caller, would have.
fn disturb(random: &mut Random, cpu: &mut TestCpu) {
    cpu.control.cr0 ^= *random.pick(&[0, cr0::PE, cr0::PG, cr0::WP, cr0::AM]);
    cpu.control.cr4 ^= *random.pick(&[0, cr4::PAE, cr4::PSE, cr4::SMEP, cr4::SMAP, cr4::LA57]);
    cpu.control.efer ^= *random.pick(&[0, efer::LMA, efer::NXE]);
    cpu.control.cr3 = random.operand();
    cpu.rip = random.operand();
    for segment in &mut cpu.segments {
        *segment = flat(SegmentAttributes::from_bits(random.bits() as u32));
        segment.base = random.operand();
        segment.limit = random.operand() as u32;
    }
    cpu.segment_mut(SegmentRegister::Cs).limit = u32::MAX;
}

/// Random bytes that often are an instruction with a memory operand.
pub fn code(random: &mut Random) -> [u8; 15] {
    let mut bytes = random.bits().to_le_bytes().repeat(2);
    bytes[9..15].copy_from_slice(&random.bits().to_le_bytes()[..6]);
    if random.chance(2) {
        bytes.insert(0, *random.pick(&[0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x48, 0x0F, 0x64]));
    }
    let mut code = [0; 15];
    code.copy_from_slice(&bytes[..15]);
    code
}

/// Pages that instructions of a [`machine`] can write.
fn data(bus: &TestBus) -> [[u8; 4096]; 2] {
    [DATA, DATA + 0x1000].map(|page| bus.page(page))
}

/// Fills the pages of data, and has the descriptor tables lie there.
fn fill(random: &mut Random, machine: &mut Machine) {
    for at in (DATA..DATA + 0x2000).step_by(8) {
        if random.chance(8) {
            machine.bus.store(at, 8, random.operand());
        }
    }
    let limit = random.below(0x400) as u16;
    machine.cpu.gdtr = DescriptorTable { base: TABLES, limit };
    machine.cpu.idtr = DescriptorTable { base: TABLES + random.below(0x800), limit };
}

/// Executes one instruction of `machine` and checks that it does no more than it may.
///
/// # Panics
/// If it changes something and does not say so, or works without bound.
pub fn check_instruction(machine: &mut Machine, code: &[u8; 15], given: bool) -> Outcome {
    let before = machine.cpu.clone();
    let data_before = data(&machine.bus);
    let given = given.then_some(&code[..]);
    machine.bus.accesses.set(0);
    let outcome = emulate(&mut machine.cpu, &mut machine.bus, given);
    let accesses = machine.bus.accesses.take();
    assert!(accesses <= MOST_ACCESSES, "{accesses} accesses of {code:02x?}");
    let repeats = code.contains(&0xF2) || code.contains(&0xF3);
    let unchanged = !matches!(outcome, Outcome::Done { .. } | Outcome::Repeat { .. });
    if unchanged && !repeats {
        assert_eq!(machine.cpu, before, "{code:02x?} {outcome:x?}");
        assert!(data(&machine.bus) == data_before, "{code:02x?} {outcome:x?}");
    }
    if let Ok(length) = instruction_length(&mut machine.cpu, &mut machine.bus, given) {
        assert!((1..=15).contains(&length), "{length} bytes of {code:02x?}");
    }
    outcome
}

/// Executes a few random instructions of a machine in a random state.
///
/// # Panics
/// See [`check_instruction`].
pub fn check_instructions(bytes: &[u8]) {
    let mut random = Random::of(bytes);
    let first = code(&mut random);
    let mut machine = machine(&mut random, &first);
    if random.chance(2) {
        fill(&mut random, &mut machine);
    }
    for _ in 0..1 + random.below(4) {
        let given = random.chance(2);
        let next = code(&mut random);
        let code = if given { next } else { first };
        let _ = check_instruction(&mut machine, &code, given);
    }
}

/// Delivers random events to, and switches the tasks of, a machine whose descriptors and task
/// states are random.
///
/// # Panics
/// If the work is without bound, or a switch that was refused has changed the CPU.
pub fn check_descriptors(bytes: &[u8]) {
    let mut random = Random::of(bytes);
    let code = code(&mut random);
    let mut machine = machine(&mut random, &code);
    fill(&mut random, &mut machine);
    seed_descriptors(&mut random, &mut machine);
    for _ in 0..1 + random.below(3) {
        machine.bus.accesses.set(0);
        if random.chance(2) {
            let event = event(&mut random);
            let _ = deliver(&mut machine.cpu, &mut machine.bus, event);
        } else {
            switch(&mut random, &mut machine);
        }
        let accesses = machine.bus.accesses.take();
        assert!(accesses <= MOST_ACCESSES, "{accesses} accesses");
    }
}

/// Descriptors that are mostly of a type that leads further, with bases in the pages of data.
fn seed_descriptors(random: &mut Random, machine: &mut Machine) {
    machine.cpu.gdtr.limit = 0x7F + random.below(0x80) as u16;
    for slot in 1..16 {
        let kind = random.below(32);
        let limit = *random.pick(&[0, 0x2B, 0x2C, 0x67, 0x68, 0xFFFF]);
        let base = DATA + random.below(0x2000);
        let present = if random.chance(8) { 0 } else { 1 << 47 };
        let privilege = random.below(4) << 45;
        // Bits 40 to 44: the type, and whether it is one of code or data.
        let descriptor = present | privilege | kind << 40 | base << 16 | limit;
        machine.bus.store(TABLES + 8 * slot, 8, descriptor);
    }
    let mut task = machine.cpu.segments[SegmentRegister::Tr as usize];
    task.base = DATA + random.below(0x2000);
    task.limit = *random.pick(&[0x2B, 0x67, 0x66, 0x2A, 0xFFFF]);
    task.attributes = SegmentAttributes::new()
        .with_kind(*random.pick(&[1, 3, 9, 11, 0]))
        .with_present(!random.chance(8));
    task.selector = random.below(0x100) as u16;
    *machine.cpu.segment_mut(SegmentRegister::Tr) = task;
}

fn event(random: &mut Random) -> Event {
    let vector = Vector(random.bits() as u8);
    match random.below(4) {
        0 => Event::Interrupt(vector),
        1 => Event::Nmi,
        2 => Event::SoftwareInterrupt { vector, length: 1 + random.below(15) as u8 },
        _ => Event::Exception(Exception::with_code(vector.0 & 31, random.bits() as u32)),
    }
}

fn switch(random: &mut Random, machine: &mut Machine) {
    let sources = [
        TaskSwitchSource::Call,
        TaskSwitchSource::Return,
        TaskSwitchSource::Jump,
        TaskSwitchSource::Gate,
    ];
    let switch = TaskSwitch {
        selector: random.below(0x100) as u16,
        source: *random.pick(&sources),
        error_code: random.chance(2).then(|| random.bits() as u32),
    };
    let departure = Departure { return_to: random.operand(), external: random.chance(2) };
    let before = machine.cpu.clone();
    let data_before = data(&machine.bus);
    let end = switch_task(&mut machine.cpu, &mut machine.bus, switch, departure);
    if !end.committed {
        assert_eq!(machine.cpu, before, "{switch:x?} {end:x?}");
        assert!(data(&machine.bus) == data_before, "{switch:x?} {end:x?}");
    }
}
