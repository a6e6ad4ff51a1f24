// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switches of tasks in protected mode: by CALL, JMP and IRET, and by task gates for a software
//! interrupt, exceptions with and without error code, a double fault and an external interrupt;
//! to a 16-bit TSS; and to a task whose code segment is none.
//!
//! A second task notes how it was reached and goes back, each time that the first one goes there.

mod visit;

use self::visit::{Note, STATE_SIZE, State};
use super::modes::switch::{self, Context, PAE, PAGING, PROTECTED, PSE};
use crate::rt::cell::Fixed;
use crate::rt::report::Report;
use crate::rt::segments::{self, ABSENT_DATA, KERNEL_CODE32, KERNEL_DATA};
use crate::rt::{apic, pic};

/// Selectors of the tasks; [`visit`] knows them, too.
const MAIN: u16 = segments::TASK32;
const OTHER: u16 = 0x70;
const FAULT: u16 = 0x78;
/// Its code selector names data.
const BAD: u16 = segments::TASK;
/// A 16-bit TSS.
const SMALL: u16 = segments::SCRATCH;

const UNDEFINED: usize = 6;
const DOUBLE_FAULT: usize = 8;
const INVALID_TSS: usize = 10;
const NOT_PRESENT: usize = 11;
const PROTECTION: usize = 13;
const INTERRUPT: usize = 0x40;
const SOFTWARE: usize = 0x90;

const TASK_SWITCHED: u32 = 1 << 3;
const NESTED: u32 = 1 << 14;

/// Where the second task's page tables show low memory once more, and what is there.
const ALIAS: u32 = 0x4000_0000;
const MAGIC: u32 = 0x7A5C_0DE5;

static GATES: Fixed<[u64; 256]> = Fixed::new([0; 256]);
static DIRECTORIES: Fixed<[[u32; 1024]; 2]> = Fixed::new([[0; 1024]; 2]);
/// The page-directory pointers of each task, 32 bytes apart.
static POINTERS: Fixed<[[u64; 4]; 2]> = Fixed::new([[0; 4]; 2]);

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    apic::enable(false);
    prepare();
    let directory = DIRECTORIES.address() as u32;
    let pointers = POINTERS.address() as u32;
    visit(&mut report, "no paging", PROTECTED, 0, [0, 0]);
    visit(&mut report, "32-bit paging", PAGING, PSE, [directory, directory + 0x1000]);
    visit(&mut report, "PAE paging", PAGING, PAE, [pointers, pointers + 32]);
    report.finish()
}

/// Fills in gates and page tables.
fn prepare() {
    let task_gate = |selector: u16| u64::from(selector) << 16 | 0x85 << 40;
    // SAFETY: the tables are this module's own, and low memory is free.
    unsafe {
        let gates = GATES.get().cast::<u64>();
        for vector in 0..256 {
            gates.add(vector).write(switch::fault_gate());
        }
        for vector in [UNDEFINED, DOUBLE_FAULT, NOT_PRESENT, INTERRUPT, SOFTWARE] {
            gates.add(vector).write(task_gate(OTHER));
        }
        gates.add(INVALID_TSS).write(task_gate(FAULT));
        // A handler in a data segment: #GP becomes a double fault.
        gates.add(PROTECTION).write(0x8E << 40 | u64::from(KERNEL_DATA) << 16);
        switch::set_idt(GATES.address());

        let directories = DIRECTORIES.get().cast::<u32>();
        let pointers = POINTERS.get().cast::<u64>();
        let identity = switch::identity_pointers();
        for task in 0..2 {
            for index in 0..1024 {
                let page = (index as u32) << 22 | 0x83;
                directories.add(task * 1024 + index).write(page);
            }
            for (index, pointer) in identity.into_iter().enumerate() {
                pointers.add(task * 4 + index).write(pointer);
            }
        }
        directories.add(1024 + (ALIAS >> 22) as usize).write(0x83);
        pointers.add(4 + (ALIAS >> 30) as usize).write(identity[0]);
        (switch::RESULTS as *mut u32).write_volatile(MAGIC);
        visit::place_small_task();
    }
}

/// The descriptor of an available TSS of 32 bits.
fn descriptor(state: u32) -> u64 {
    segments::task32_descriptor(state, 103)
}

/// Fills in the tasks, whose CR3 are `tables`, and goes there.
fn visit(report: &mut Report, name: &str, cr0: u32, cr4: u32, tables: [u32; 2]) {
    let first = visit::states();
    let place = |index: usize| (first + (index * STATE_SIZE) as u64) as u32;
    let [main_tables, other_tables] = tables;
    let other = State { cr3: other_tables, ..State::new(visit::other(), visit::other_stack()) };
    let fault = State { cr3: main_tables, ..State::new(visit::fault(), visit::fault_stack()) };
    let bad = State { code: KERNEL_DATA, ..fault };
    let main = State { cr3: main_tables, ..State::default() };
    for (index, state) in [main, other, fault, bad].into_iter().enumerate() {
        visit::write_state(index, &state);
    }
    visit::write_small_state(4);
    for (index, selector) in [MAIN, OTHER, FAULT, BAD].into_iter().enumerate() {
        segments::set_descriptor(selector, descriptor(place(index)));
    }
    let small = descriptor(place(4)) & !(0xFFFF | 8 << 40) | 43;
    segments::set_descriptor(SMALL, small);
    let entry = visit::main();
    let context = Context { entry, cr0, cr3: main_tables, cr4, task: MAIN.into() };
    // SAFETY: the tables of both tasks map this program where it is, and what long mode needs is
    // loaded again behind it.
    let ended = unsafe { switch::mode_call(&raw const context) };
    segments::load(0);
    report.equal(format_args!("{name}: came back"), ended, 1);
    check(report, name, cr0 == PAGING, other_tables);
}

fn check(report: &mut Report, name: &str, pages: bool, tables: u32) {
    let expected = Note {
        task: OTHER.into(),
        flags: NESTED,
        pushed: 0,
        error_code: 0,
        link: MAIN.into(),
        distance: 0,
        cr0: TASK_SWITCHED,
        cr3: tables,
        alias: MAGIC,
        ebp: visit::EBP,
    };
    let absent = u32::from(ABSENT_DATA);
    let ways = [
        ("CALL", expected),
        ("software interrupt", expected),
        ("#UD", expected),
        ("interrupt", expected),
        ("#NP", Note { pushed: 4, error_code: absent, ..expected }),
        ("#DF", Note { pushed: 4, ..expected }),
        ("JMP", Note { flags: 0, ..expected }),
    ];
    let notes = visit::notes();
    for ((way, expected), note) in ways.into_iter().zip(notes) {
        let alias = if pages { note.alias } else { MAGIC };
        let cr0 = note.cr0 & TASK_SWITCHED;
        let got = Note { flags: note.flags & NESTED, cr0, alias, ..note };
        report.equal(format_args!("{name}: {way}"), got, expected);
    }
    let [.., last] = notes;
    let got = (last.task, last.pushed, last.error_code, last.link);
    let code = u32::from(KERNEL_DATA);
    let expected = (FAULT.into(), 4, code, BAD.into());
    report.equal(format_args!("{name}: #TS in the new task"), got, expected);
    let small = visit::small_state(4);
    report.equal(format_args!("{name}: 16-bit TSS"), small, (MAIN, visit::SMALL_NEXT, 0));
    report.equal(format_args!("{name}: code selector"), visit::saved_code(), KERNEL_CODE32);
}
