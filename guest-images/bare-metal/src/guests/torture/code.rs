// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random instructions.

use super::forms::{FORMS, Form, Immediate, Operand, PREFIXES, Steer};
use super::random::Random;
use super::values;
use crate::rt::start_info;

/// Most bytes that are made up; behind them are breakpoints.
const CAPACITY: usize = 160;

/// Second bytes of instructions, and what the middle of their ModRM bytes means.
const LTR: u8 = 3;
const MOV_TO_CR: u8 = 0x22;
const CR0: u8 = 0;
const MOV_TO_DR: u8 = 0x23;

/// Instructions under construction.
pub struct Code {
    bytes: [u8; CAPACITY],
    length: usize,
    /// Whether they are for 16-bit code, where operands of 32 bits want a prefix.
    narrow: bool,
}

impl Code {
    /// Makes up some instructions for code of 16 bits, or for wider code.
    pub fn random(random: &mut Random, narrow: bool) -> Self {
        let mut code = Self { bytes: [0xCC; CAPACITY], length: 0, narrow };
        if random.one_in(4) {
            let length = 1 + random.below(40);
            (0..length).for_each(|_| code.push(random.next() as u8));
        } else {
            code.forms(random);
        }
        if start_info::is_tcg_cpu() {
            code.leave_out(|second, operand| {
                second == 0 && operand >> 3 & 7 == LTR || second == MOV_TO_DR
            });
        } else if start_info::is_bochs_svm() {
            code.leave_out(|second, operand| second == MOV_TO_CR && operand >> 3 & 7 == CR0);
        }
        code
    }

    fn forms(&mut self, random: &mut Random) {
        for _ in 0..=random.below(8) {
            match random.below(16) {
                0 => (0..=random.below(4)).for_each(|_| self.push(random.next() as u8)),
                _ => self.form(random),
            }
        }
        // Some run on for ever, until an interrupt comes.
        if random.one_in(4) {
            self.jump_back();
        }
    }

    /// Takes out what ends the emulator itself, wherever it begins: what `is_deadly` says so of by
    /// its second byte and the one that names its operands. On QEMU's TCG (7.2):
    ///
    /// - LTR is executed with a null selector, and the next interrupt that wants a stack of the
    ///   task's aborts QEMU, "invalid tss".
    /// - MOV to a debug register, when it switches a breakpoint on: VMRUN and #VMEXIT load DR7
    ///   without telling QEMU's list of breakpoints, and the emulator faults in
    ///   `cpu_breakpoint_remove_by_ref` when it takes one for what it is not. One over the end of
    ///   the address space, "tried to set invalid watchpoint", does that at once.
    ///
    /// On Bochs (2.7) with SVM:
    ///
    /// - MOV to CR0, when it clears PE and leaves PG: Bochs lets guests do that, and panics,
    ///   "EFER.LMA is set when CR0.PE=0".
    fn leave_out(&mut self, is_deadly: fn(u8, u8) -> bool) {
        for at in 0..CAPACITY.saturating_sub(2) {
            if let Some([first @ 0x0F, second, operand]) = self.bytes.get_mut(at..at + 3)
                && is_deadly(*second, *operand)
            {
                *first = 0x90;
            }
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    fn push_all(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.push(byte));
    }

    /// A short jump to the first instruction.
    fn jump_back(&mut self) {
        if self.length < 120 {
            let distance = 0_usize.wrapping_sub(self.length + 2);
            self.push_all(&[0xEB, distance as u8]);
        }
    }

    fn form(&mut self, random: &mut Random) {
        let none = Form {
            opcode: &[0x90],
            operand: Operand::None,
            immediate: Immediate::None,
            steer: Steer::None,
        };
        let form = random.pick(FORMS, none);
        if !random.one_in(4) {
            self.steer(random, form.steer);
        }
        if random.one_in(4) {
            (0..=random.below(3)).for_each(|_| self.push(random.pick(PREFIXES, 0x66)));
        }
        if !self.narrow && random.one_in(6) {
            self.push(0x40 | random.next() as u8 & 0xF);
        }
        self.push_all(form.opcode);
        self.operand(random, form.operand);
        self.immediate(random, form.immediate);
    }

    /// Loads the register that the next instruction is steered by.
    fn steer(&mut self, random: &mut Random, steer: Steer) {
        match steer {
            Steer::None => {}
            Steer::Msr => self.load(1, values::msr(random)),
            Steer::Port => self.load(2, values::port(random).into()),
            Steer::Selector => self.load(0, values::selector(random).into()),
            Steer::Small => self.load(1, random.below(4) as u32),
            Steer::Leaf => {
                let leaf = random.next() as u32 & 0x1F;
                self.load(0, random.pick(&[0, 0x4000_0000, 0x8000_0000], 0) | leaf);
            }
        }
    }

    /// MOV of 32 bits to a register.
    fn load(&mut self, register: u8, value: u32) {
        if self.narrow {
            self.push(0x66);
        }
        self.push(0xB8 | register);
        self.push_all(&value.to_le_bytes());
    }

    fn operand(&mut self, random: &mut Random, operand: Operand) {
        let byte = random.next() as u8;
        match operand {
            Operand::None => {}
            Operand::Any if random.one_in(2) => self.push(byte | 0xC0),
            Operand::Any | Operand::Memory => self.memory(random, byte >> 3 & 7),
            Operand::Register => self.push(byte | 0xC0),
            Operand::Group(group) if random.one_in(2) => self.push(0xC0 | group << 3 | byte & 7),
            Operand::Group(group) | Operand::GroupMemory(group) => self.memory(random, group),
        }
    }

    /// A ModRM byte that names memory, with what belongs to it.
    fn memory(&mut self, random: &mut Random, middle: u8) {
        let low = random.next() as u8 & 7;
        let middle = middle << 3;
        if self.narrow {
            match random.below(3) {
                0 => self.push_all(&[0x40 | middle | low, random.next() as u8]),
                1 => {
                    self.push(0x06 | middle);
                    self.push_all(&(values::low_address(random) as u16).to_le_bytes());
                }
                _ => self.push(middle | if low == 6 { 7 } else { low }),
            }
            return;
        }
        match random.below(4) {
            // Absolute, in all modes.
            0 => {
                self.push_all(&[0x04 | middle, 0x25]);
                self.push_all(&values::low_address(random).to_le_bytes());
            }
            1 => {
                self.push(0x40 | middle | low);
                if low == 4 {
                    self.push(random.next() as u8);
                }
                self.push(random.next() as u8);
            }
            // Relative to RIP in 64-bit code.
            2 if random.one_in(4) => {
                self.push(0x05 | middle);
                self.push_all(&values::low_address(random).to_le_bytes());
            }
            _ => self.push(middle | if low == 4 || low == 5 { 3 } else { low }),
        }
    }

    fn immediate(&mut self, random: &mut Random, immediate: Immediate) {
        match immediate {
            Immediate::None => {}
            Immediate::Byte => self.push(random.next() as u8),
            Immediate::Word => self.push_all(&(random.magnitude() as u16).to_le_bytes()),
            Immediate::Address => self.push_all(&values::low_address(random).to_le_bytes()),
            Immediate::Far => {
                match self.narrow {
                    true => self.push_all(&(values::CODE as u16).to_le_bytes()),
                    false => self.push_all(&(values::CODE as u32).to_le_bytes()),
                }
                self.push_all(&values::selector(random).to_le_bytes());
            }
            Immediate::Port => self.push(values::port(random) as u8),
        }
    }
}
