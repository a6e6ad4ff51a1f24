// SPDX-License-Identifier: MIT OR Apache-2.0
//! Differential test: the same instruction on the processor the test runs on and in the
//! emulator, from the same random registers, flags and memory.

#[cfg(test)]
mod branches;
#[cfg(test)]
mod compatibility;
pub mod forms;
pub mod processor;

use std::sync::OnceLock;

use super::machine::{ROOT, TestBus, TestCpu};
use super::random::Random;
use crate::emulate::{EmulatorCpu, Outcome, emulate};
use crate::state::rflags::{AF, CF, DF, FIXED, IF, OF, PF, SF, ZF};
use crate::state::{Gpr, rflags};
use forms::{Case, Form};
use processor::{ARENA_PAGES, Processor, Registers};

/// Guest-physical address of the arena.
const PHYSICAL: u64 = 0x200_0000;
const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// The emulator's side: the arena of the processor, mapped at the same linear addresses.
struct Emulated {
    bus: TestBus,
}

impl Emulated {
    fn new(arena: u64) -> Self {
        let pages: Vec<u64> = (0..ARENA_PAGES).map(|page| PHYSICAL + page * 4096).collect();
        let mut bus = TestBus::new(&pages);
        for page in 0..ARENA_PAGES {
            bus.map(arena + page * 4096, PHYSICAL + page * 4096, 7);
        }
        Self { bus }
    }

    /// Runs the code at the start of the arena.
    fn run(&mut self, code: u64, registers: &Registers) -> (TestCpu, Outcome) {
        let mut cpu = TestCpu::long(ROOT);
        cpu.gprs = registers.gprs;
        cpu.rflags = registers.flags;
        cpu.rip = code;
        for _ in 0..4 {
            match emulate(&mut cpu, &mut self.bus, None) {
                Outcome::Repeat { .. } => {}
                outcome => return (cpu, outcome),
            }
        }
        panic!("{:?} does not end", cpu);
    }
}

/// Random registers with which the forms stay within the arena.
fn registers(random: &mut Random, arena: u64, form: &Form) -> Registers {
    let mut gprs = [0; 16];
    gprs.fill_with(|| random.operand());
    let boundary = arena + 2 * 4096;
    // The middle of the data, sometimes so that operands cross pages.
    let base = if random.chance(3) { boundary + 0x800 } else { boundary - random.below(64) };
    gprs[Gpr::Rbx as usize] = base & if form.aligned { !15 } else { !0 };
    gprs[Gpr::R9 as usize] = random.below(32);
    gprs[Gpr::Rsp as usize] = boundary + 0x400 - random.below(3);
    if form.string {
        gprs[Gpr::Rsi as usize] = boundary + random.below(256);
        gprs[Gpr::Rdi as usize] = boundary + 0x100 - random.below(256);
        gprs[Gpr::Rcx as usize] = random.below(20);
    }
    let flags = random.bits() & (STATUS | if form.string { DF } else { 0 });
    Registers { gprs, flags: flags | FIXED | IF }
}

/// Keeps bit numbers small enough to stay within the arena.
fn limit_bit_number(random: &mut Random, form: &Form, case: &Case, registers: &mut Registers) {
    if form.bit_string {
        let number = random.below(0x4000).wrapping_sub(0x2000);
        registers.gprs[usize::from(case.register)] = number;
    }
}

/// Puts RDX:RAX where CMPXCHG looks, half of the time, so that it finds it equal.
fn seed_comparison(
    random: &mut Random,
    form: &Form,
    case: &Case,
    registers: &Registers,
    processor: &Processor,
    emulated: &Emulated,
) {
    let Some(operand) = case.memory_operand(registers) else { return };
    if !form.compares || random.chance(2) {
        return;
    }
    let half = if form.opcode == [0x0F, 0xC7] && case.size == 4 { 4 } else { 8 };
    for (at, register) in [(0, Gpr::Rax), (half, Gpr::Rdx)] {
        let value = registers.gprs[register as usize].to_le_bytes();
        processor.store(operand + at, &value);
        emulated.bus.store_bytes(operand + at - processor.arena() + PHYSICAL, &value);
    }
}

/// The forms that this processor knows.
fn forms() -> &'static [Form] {
    static FORMS: OnceLock<Vec<Form>> = OnceLock::new();
    FORMS.get_or_init(forms::all)
}

/// The processor and the emulator side by side, with the same memory.
pub struct Differential {
    processor: Processor,
    emulated: Emulated,
}

impl Differential {
    /// Memory with random content.
    pub fn new(random: &mut Random) -> Self {
        let processor = Processor::new();
        let emulated = Emulated::new(processor.arena());
        for page in 1..ARENA_PAGES {
            let bytes: Vec<u8> =
                (0..4096 / 8).flat_map(|_| random.generate().to_le_bytes()).collect();
            processor.store(processor.arena() + page * 4096, &bytes);
            emulated.bus.store_bytes(PHYSICAL + page * 4096, &bytes);
        }
        Self { processor, emulated }
    }

    /// Executes random instructions of random forms, those that the first of `bytes` say, in
    /// both ways.
    ///
    /// # Panics
    /// If the emulator does something else than the processor.
    pub fn check(bytes: &[u8]) {
        let mut random = Random::of(bytes);
        let mut both = Self::new(&mut random);
        for _ in 0..1 + random.below(16) {
            let form = random.pick(forms());
            both.check_form(form, &mut random);
        }
    }

    /// Executes an instruction of this form in both ways.
    fn check_form(&mut self, form: &Form, random: &mut Random) {
        let Self { processor, emulated } = self;
        let arena = processor.arena();
        let mut start = registers(random, arena, form);
        let case = form.case(random, arena, &start);
        limit_bit_number(random, form, &case, &mut start);
        if case.is_undefined(form, &start) {
            return;
        }
        processor.store(arena, &case.code);
        emulated.bus.store_bytes(PHYSICAL, &case.code);
        seed_comparison(random, form, &case, &start, processor, emulated);
        let (cpu, outcome) = emulated.run(arena, &start);
        // A scan of zero leaves its destination as it was on some processors only.
        let scanned_zero = form.scans && cpu.rflags & ZF != 0;
        if scanned_zero || (form.may_fault && matches!(outcome, Outcome::Fault(_))) {
            return;
        }
        let described = format!("{:02x?} from {start:x?}", case.code);
        assert_eq!(outcome, Outcome::Done { debug_trap: false }, "{described}");
        assert_eq!(cpu.rip(), arena + case.code.len() as u64, "{described}");
        let end = processor.run(&start, case.code.len());
        assert_eq!(hex(&cpu.gprs), hex(&end.gprs), "registers after {described}");
        let compared = (STATUS | rflags::DF) & !case.undefined_flags(form, &start);
        let (ours, theirs) = (cpu.rflags & compared, end.flags & compared);
        assert_eq!(ours, theirs, "flags {ours:#x} {theirs:#x} after {described}");
        for page in 1..ARENA_PAGES {
            let ours = emulated.bus.page(PHYSICAL + page * 4096);
            assert!(ours == processor.page(page), "memory after {described}");
        }
    }
}

fn hex(gprs: &[u64; 16]) -> String {
    format!("{gprs:x?}")
}

/// Cases per form, each with its own operand size, addressing and values.
#[cfg(test)]
const CASES_PER_FORM: usize = 100;

#[test]
fn instructions_do_what_the_processor_does() {
    let mut random = Random::new(0x0A1C_A2A2);
    let mut both = Differential::new(&mut random);
    for form in forms() {
        for _ in 0..CASES_PER_FORM {
            both.check_form(form, &mut random);
        }
    }
}
