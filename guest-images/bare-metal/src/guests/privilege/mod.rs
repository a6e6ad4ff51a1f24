// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every instruction that can exit, executed in every operating mode and at both ends of
//! privilege: it does what it should, or raises the exception that it should, at the instruction.
//!
//! An instruction lies in a page of its own below 1 MiB, which all modes reach, behind moves that
//! set its registers and before one that is undefined: a fault there says that it was executed.

mod instructions;
mod legacy;
mod place;

use core::ptr;

use self::instructions::{INSTRUCTIONS, Instruction};
use self::place::{Met, PLACES, Place, Width};
use crate::rt::report::Report;
use crate::rt::trap::UD;
use crate::rt::{apic, pic};

/// Where the instruction is put.
const CODE: u64 = 0x9000;
/// Memory that its operand may be in.
const OPERAND: u32 = 0xA000;
/// The vector that stands for none.
const EXECUTED: u64 = 0x100;

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    apic::enable(false);
    legacy::prepare();
    for place in &PLACES {
        let (mut tried, mut failed) = (0, 0_u32);
        for instruction in INSTRUCTIONS {
            let Some(allowed) = instruction.expected(place) else { continue };
            tried += 1;
            let met = execute(instruction, place);
            if !allowed.contains(&met.vector) || !met.at_instruction {
                failed += 1;
                report.holds(format_args!("{}: {}", place.name, instruction.name), false, met);
            }
        }
        report.equal(format_args!("{}: {tried} instructions", place.name), failed, 0);
    }
    report.finish()
}

/// Executes an instruction and says what it met.
fn execute(instruction: &Instruction, place: &Place) -> Met {
    let mut code = Code::new(place.width);
    for (register, value) in instruction.registers() {
        code.load(register, value);
    }
    let start = code.end;
    code.put(instruction.bytes(place.width));
    let end = code.end;
    code.put(&[0x0F, 0x0B]);
    let (vector, at) = place.run();
    match vector {
        UD if at == end => Met { vector: EXECUTED, at_instruction: true },
        vector => {
            let behind = instruction.traps();
            let expected = if behind { end } else { start };
            Met { vector, at_instruction: at == expected }
        }
    }
}

/// Code that is put together for a mode.
struct Code {
    width: Width,
    end: u64,
}

impl Code {
    fn new(width: Width) -> Self {
        Self { width, end: CODE }
    }

    fn put(&mut self, bytes: &[u8]) {
        // SAFETY: a page of free memory below 640 KiB, which holds far more than one instruction.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.end as *mut u8, bytes.len()) };
        self.end += bytes.len() as u64;
    }

    /// Loads a register, by its encoding, with a 32-bit number.
    fn load(&mut self, register: u8, value: u32) {
        if self.width == Width::Bits16 {
            self.put(&[0x66]);
        }
        self.put(&[0xB8 + register]);
        self.put(&value.to_le_bytes());
    }
}
