// SPDX-License-Identifier: MIT OR Apache-2.0
//! Branches and stack frames, which change RIP, RSP or RBP.

use super::processor::{ARENA_PAGES, PAD, Processor, Registers};
use super::{Emulated, PHYSICAL, STATUS, hex};
use crate::emulate::tests::random::Random;
use crate::emulate::{EmulatorCpu, Outcome};
use crate::state::Gpr;
use crate::state::rflags::{FIXED, IF};

const CASES: usize = 60;

/// Where branches that are taken go, from the start of the arena.
const TARGET: u64 = 0x70;
/// Where the stack and the frame are, from the start of the arena.
const STACK: u64 = 0x2400;
const FRAME: u64 = 0x2600;

/// One instruction, and whether it may go elsewhere.
struct Instruction {
    code: Vec<u8>,
    branches: bool,
}

fn branch(opcode: &[u8], displacement_bytes: usize) -> Instruction {
    let mut code = opcode.to_vec();
    let end = (code.len() + displacement_bytes) as u32;
    code.extend(&(TARGET as u32 - end).to_le_bytes()[..displacement_bytes]);
    Instruction { code, branches: true }
}

fn plain(code: &[u8], branches: bool) -> Instruction {
    Instruction { code: code.to_vec(), branches }
}

fn instructions() -> Vec<Instruction> {
    let mut all = Vec::new();
    for condition in 0..16 {
        all.push(branch(&[0x70 | condition], 1));
        all.push(branch(&[0x0F, 0x80 | condition], 4));
    }
    // LOOPNE, LOOPE, LOOP and JRCXZ, with the count in RCX and in ECX.
    for opcode in 0xE0..=0xE3 {
        all.push(branch(&[opcode], 1));
        all.push(branch(&[0x67, opcode], 1));
    }
    all.push(branch(&[0xEB], 1));
    all.push(branch(&[0xE9], 4));
    all.push(branch(&[0xE8], 4));
    // call [rbp]; jmp [rbp]; call r15; jmp r15.
    for code in [&[0xFF, 0x55, 0x00][..], &[0xFF, 0x65, 0x00], &[0x41, 0xFF, 0xD7]] {
        all.push(plain(code, true));
    }
    all.push(plain(&[0x41, 0xFF, 0xE7], true));
    // ret; ret 0x18.
    all.push(plain(&[0xC3], true));
    all.push(plain(&[0xC2, 0x18, 0x00], true));
    // enter 0x20, 0 to 5, with 64 and 16 bits; leave.
    for level in 0..6 {
        all.push(plain(&[0xC8, 0x20, 0x00, level], false));
        all.push(plain(&[0x66, 0xC8, 0x20, 0x00, level], false));
    }
    all.push(plain(&[0xC9], false));
    all
}

fn registers(random: &mut Random, arena: u64) -> Registers {
    let mut gprs = [0; 16];
    gprs.fill_with(|| random.operand());
    gprs[Gpr::Rcx as usize] = random.below(3) | random.below(2) << 32;
    gprs[Gpr::Rsp as usize] = arena + STACK;
    gprs[Gpr::Rbp as usize] = arena + FRAME;
    gprs[Gpr::R15 as usize] = arena + TARGET;
    Registers { gprs, flags: random.bits() & STATUS | FIXED | IF }
}

#[test]
fn branches_and_frames_do_what_the_processor_does() {
    let processor = Processor::new();
    let arena = processor.arena();
    let mut emulated = Emulated::new(arena);
    let mut random = Random::new(0xB4A4_C4E5);
    for instruction in instructions() {
        let code = &instruction.code;
        let ends = [arena + code.len() as u64, arena + TARGET];
        assert!(!instruction.branches || ends[0] + PAD <= ends[1]);
        for _ in 0..CASES {
            for offset in (0x2000..0x2800).step_by(8) {
                let at_pointer = [STACK, FRAME].contains(&offset);
                let value = if at_pointer { arena + TARGET } else { random.bits() };
                processor.store(arena + offset, &value.to_le_bytes());
                emulated.bus.store(PHYSICAL + offset, 8, value);
            }
            let start = registers(&mut random, arena);
            processor.store(arena, code);
            emulated.bus.store_bytes(PHYSICAL, code);
            let (cpu, outcome) = emulated.run(arena, &start);
            let described = format!("{code:02x?} from {start:x?}");
            assert_eq!(outcome, Outcome::Done { debug_trap: false }, "{described}");
            let (end, reached) = processor.run_branch(&start, &ends);
            assert_eq!(cpu.rip(), ends[reached], "RIP after {described}");
            assert_eq!(hex(&cpu.gprs), hex(&end.gprs), "registers after {described}");
            assert_eq!(cpu.rflags & STATUS, end.flags & STATUS, "flags after {described}");
            for page in 1..ARENA_PAGES {
                let ours = emulated.bus.page(PHYSICAL + page * 4096);
                assert!(ours == processor.page(page), "memory after {described}");
            }
        }
    }
}
