// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nothing a guest can be panics the emulator, hangs it, or changes state before a fault.

use super::hostile::{check_descriptors, check_instruction, code, machine};
use super::machine::{DATA, Machine};
use super::random::Random;
use crate::emulate::Outcome;
use crate::state::Gpr;

#[test]
fn random_instructions_end_and_fault_precisely() {
    let mut random = Random::new(0x5EED);
    let mut completed = 0;
    for _ in 0..20_000 {
        let code = code(&mut random);
        let mut machine = machine(&mut random, &code);
        let outcome = check_instruction(&mut machine, &code, random.chance(2));
        completed += u32::from(matches!(outcome, Outcome::Done { .. }));
    }
    assert!(completed > 2500, "only {completed} instructions did something");
}

#[test]
fn random_descriptors_end_and_fault_precisely() {
    for seed in 0..2_000_u64 {
        check_descriptors(&seed.to_le_bytes());
    }
}

#[test]
fn an_instruction_cut_off_by_the_end_of_memory_faults_there() {
    let mut random = Random::new(7);
    let (last, beyond) = (DATA + 0x1FFF, DATA + 0x2000);
    let mut cut = 0;
    for _ in 0..2000 {
        let mut machine = Machine::long(&[]).set(Gpr::Rsp, DATA + 0x100);
        machine.cpu.rip = last;
        let opcode = random.bits() & 0xFF;
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
