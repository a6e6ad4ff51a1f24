// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept of an instruction tells nothing but what a fresh look would.

use proptest::prelude::*;

use super::machine::{CODE, HIGH, Machine, machine};
use crate::{
    Exit,
    vcpu::known_code::{CodePlace, KnownCode},
};

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;

/// Roots of two address spaces, and the tables of each level that they lead to.
const ROOTS: [u64; 2] = [0x10_0000, 0x10_1000];
const TABLES: [[u64; 2]; 3] =
    [[0x10_2000, 0x10_3000], [0x10_4000, 0x10_5000], [0x10_6000, 0x10_7000]];
/// Pages of code, far from the tables.
const PAGES: [u64; 2] = [0x4000, 0x5000];
/// Where instructions begin in a page: in one word, across two, across three, and at the end.
const OFFSETS: [u64; 5] = [0, 7, 0x11, 0xFF5, 0xFFE];

/// CPUID plain and with an idle prefix, RDMSR, HLT, a store and a longer one, and an instruction
/// that is none of the usual ones.
const INSTRUCTIONS: [&[u8]; 7] = [
    &[0x0F, 0xA2],
    &[0x66, 0x0F, 0xA2],
    &[0x0F, 0x32],
    &[0xF4],
    &[0x89, 0x03],
    &[0x64, 0x48, 0xC7, 0x84, 0x23, 0, 0, 0, 0, 1, 2, 3, 4],
    &[0xF0, 0x0F, 0xB1, 0x03],
];

#[derive(Clone, Debug)]
enum Step {
    /// Sets the entry that leads to the code at a level of one of the two ways.
    Entry { level: usize, table: usize, value: u64 },
    /// Puts an instruction somewhere.
    Code { page: usize, offset: usize, instruction: usize },
    /// Looks for one, more often than anything else.
    Look { root: usize, offset: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let entry = (0..4_usize, 0..2_usize, 0..4_usize).prop_map(|(level, table, kind)| {
        let next = |index: usize| match level {
            3 => PAGES[index],
            level => TABLES[level][index],
        };
        let value = match kind {
            0 | 1 => next(kind) | PRESENT,
            2 => 0,
            // From the level of 1 GiB pages on it is a page, at address zero.
            _ => PRESENT | LARGE,
        };
        Step::Entry { level, table, value }
    });
    let code = (0..2_usize, 0..OFFSETS.len(), 0..INSTRUCTIONS.len())
        .prop_map(|(page, offset, instruction)| Step::Code { page, offset, instruction });
    let look =
        (0..2_usize, 0..OFFSETS.len()).prop_map(|(root, offset)| Step::Look { root, offset });
    prop_oneof![1 => entry, 2 => code, 5 => look]
}

/// Where an entry of the way to [`HIGH`] lies: entry 256 of a root, and the first of the others.
fn place_of_entry(level: usize, table: usize) -> u64 {
    match level {
        0 => ROOTS[table] + 256 * 8,
        level => TABLES[level - 1][table],
    }
}

fn write(machine: &Machine, step: &Step) {
    match *step {
        Step::Entry { level, table, value } => {
            machine.poke(place_of_entry(level, table), &value.to_le_bytes());
        }
        Step::Code { page, offset, instruction } => {
            let bytes = INSTRUCTIONS[instruction];
            machine.poke(PAGES[page] + OFFSETS[offset], bytes);
        }
        Step::Look { .. } => {}
    }
}

/// What a look gives, as far as it can be compared.
fn summary(known: Option<&crate::vcpu::known_code::Instruction>) -> Option<(u8, bool)> {
    known.map(|known| (known.length, known.simple_move.is_some()))
}

/// True if the look was answered by what was kept.
fn look(machine: &Machine, kept: &mut KnownCode, place: CodePlace) -> bool {
    let fresh = KnownCode::new(machine.vm.core().clone()).learn(place);
    let found = summary(kept.get(place));
    let is_known = found.is_some();
    let found = found.or_else(|| summary(kept.learn(place).as_ref()));
    assert_eq!(found, summary(fresh.as_ref()), "{:#x} by {:#x}", place.rip, place.cr3);
    is_known
}

#[test]
fn what_is_kept_is_what_a_fresh_look_finds() {
    let hits = std::cell::Cell::new(0_usize);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(120));
    let result = runner.run(&prop::collection::vec(step(), 1..120), |steps| {
        let machine = machine();
        // Two ways that never meet, to other code.
        for (level, tables) in TABLES.iter().chain([&PAGES]).enumerate() {
            for (table, next) in tables.iter().enumerate() {
                write(&machine, &Step::Entry { level, table, value: next | PRESENT });
            }
        }
        for (page, offset) in (0..2).flat_map(|page| (0..OFFSETS.len()).map(move |at| (page, at))) {
            write(&machine, &Step::Code { page, offset, instruction: page });
        }
        let mut kept = KnownCode::new(machine.vm.core().clone());
        for step in &steps {
            if let Step::Look { root, offset } = *step {
                let place = CodePlace { cr3: ROOTS[root], rip: HIGH + OFFSETS[offset] };
                hits.set(hits.get() + usize::from(look(&machine, &mut kept, place)));
            } else {
                write(&machine, step);
            }
        }
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(hits.get() > 200, "only {} looks were answered by what was kept", hits.get());
}

#[test]
fn two_instructions_of_one_pair_are_kept_beside_each_other() {
    let mut machine = machine();
    machine.enter_long_mode();
    let cr3 = machine.registers().control.cr3;
    let mut kept = KnownCode::new(machine.vm.core().clone());
    let mut places = Vec::new();
    // Each in a word of its own, whose change would make it unknown.
    for at in (0x2000..0x2800).step_by(8) {
        machine.poke(at, INSTRUCTIONS[0]);
        let place = CodePlace { cr3, rip: HIGH + at };
        let known = |kept: &KnownCode, places: &[CodePlace]| {
            places.iter().filter(|place| kept.get(**place).is_some()).count()
        };
        let before = known(&kept, &places);
        kept.learn(place).unwrap();
        assert!(kept.get(place).is_some());
        assert!(known(&kept, &places) + 1 >= before, "one is driven out at most");
        places.push(place);
    }
    let left = places.iter().filter(|place| kept.get(**place).is_some()).count();
    assert_eq!(left, 32, "all slots are in use");
}

/// Without NRIPS the VMM finds the end of an instruction by itself, and must not be misled by what
/// was at the same address before.
#[test]
fn a_guest_that_changes_its_code_or_its_tables_is_followed() {
    let mut machine = machine();
    machine.enter_long_mode();
    let lengths = [(0, 2), (0, 2), (1, 3), (2, 2), (1, 3), (1, 3)];
    for (instruction, length) in lengths {
        machine.poke(CODE, INSTRUCTIONS[instruction]);
        machine.registers().rip = HIGH + CODE;
        machine.handle(Exit::Cpuid).unwrap();
        assert_eq!(machine.registers().rip, HIGH + CODE + length);
    }
    // The same address by a table, to another page.
    let (directory, table, elsewhere) = (0xA000, 0xB000_u64, 0x6000_u64);
    machine.poke(elsewhere, INSTRUCTIONS[0]);
    machine.poke(table + CODE / 0x1000 * 8, &(elsewhere | PRESENT).to_le_bytes());
    machine.poke(directory, &(table | PRESENT).to_le_bytes());
    machine.registers().rip = HIGH + CODE;
    machine.handle(Exit::Cpuid).unwrap();
    assert_eq!(machine.registers().rip, HIGH + CODE + 2);
}
