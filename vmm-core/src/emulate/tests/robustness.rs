// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nothing a guest can be panics the emulator, hangs it, or changes state before a fault.

use super::machine::{DATA, Machine, TestCpu, flat};
use super::random::Random;
use crate::emulate::{Outcome, emulate, instruction_length};
use crate::state::{Gpr, SegmentAttributes, SegmentRegister, cr0, cr4, efer, rflags};

/// A machine in a random mode, with registers that sometimes point to memory.
fn machine(random: &mut Random, code: &[u8]) -> Machine {
    let mut machine = match random.below(3) {
        0 => Machine::long(code),
        1 => Machine::protected(code),
        _ => Machine::real(code),
    };
    let cpu = &mut machine.cpu;
    for register in &mut cpu.gprs {
        *register = if random.chance(2) { DATA + random.below(0x2010) } else { random.operand() };
    }
    cpu.rflags = random.next() & 0x3F_7FD5 | rflags::FIXED;
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
        *segment = flat(SegmentAttributes::from_bits(random.next() as u32));
        segment.base = random.operand();
        segment.limit = random.operand() as u32;
    }
    cpu.segment_mut(SegmentRegister::Cs).limit = u32::MAX;
}

/// Random bytes that often are an instruction with a memory operand.
fn code(random: &mut Random) -> [u8; 15] {
    let mut bytes = random.next().to_le_bytes().repeat(2);
    bytes[9..15].copy_from_slice(&random.next().to_le_bytes()[..6]);
    if random.chance(2) {
        bytes.insert(0, *random.pick(&[0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x48, 0x0F, 0x64]));
    }
    let mut code = [0; 15];
    code.copy_from_slice(&bytes[..15]);
    code
}

#[test]
fn random_instructions_end_and_fault_precisely() {
    let mut random = Random::new(0x5EED);
    let mut completed = 0;
    for _ in 0..20_000 {
        let code = code(&mut random);
        let mut machine = machine(&mut random, &code);
        let before = machine.cpu.clone();
        let data = [DATA, DATA + 0x1000].map(|page| machine.bus.page(page));
        let given = random.chance(2).then_some(&code[..]);
        let outcome = emulate(&mut machine.cpu, &mut machine.bus, given);
        completed += u32::from(matches!(outcome, Outcome::Done { .. }));
        let repeats = code.contains(&0xF2) || code.contains(&0xF3);
        let unchanged = !matches!(outcome, Outcome::Done { .. } | Outcome::Repeat { .. });
        if unchanged && !repeats {
            assert_eq!(machine.cpu, before, "{code:02x?} {outcome:x?}");
            let after = [DATA, DATA + 0x1000].map(|page| machine.bus.page(page));
            assert!(after == data, "{code:02x?} {outcome:x?}");
        }
        let _ = instruction_length(&mut machine.cpu, &mut machine.bus, given);
    }
    assert!(completed > 2500, "only {completed} instructions did something");
}

#[test]
fn an_instruction_cut_off_by_the_end_of_memory_faults_there() {
    let mut random = Random::new(7);
    let (last, beyond) = (DATA + 0x1FFF, DATA + 0x2000);
    let mut cut = 0;
    for _ in 0..2000 {
        let mut machine = Machine::long(&[]).set(Gpr::Rsp, DATA + 0x100);
        machine.cpu.rip = last;
        let opcode = random.next() & 0xFF;
        machine.bus.store(last, 1, opcode);
        match machine.run() {
            Outcome::Fault(fault) if fault.fault_address == Some(beyond) => cut += 1,
            // Near RET goes to where the stack says.
            Outcome::Done { .. } if opcode == 0xC3 => assert_eq!(machine.cpu.rip, 0),
            Outcome::Done { .. } => assert_eq!(machine.cpu.rip, beyond),
            Outcome::Unsupported(bytes) => assert_eq!(bytes.as_slice().len(), 1),
            _ => assert_eq!(machine.cpu.rip, last),
        }
    }
    assert!(cut > 1000, "only {cut} instructions are longer than a byte");
}
