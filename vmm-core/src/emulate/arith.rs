// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two-operand and one-operand integer arithmetic and logic.

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::{FlagUpdate, add, logic, sub};
use super::memory::Change;
use super::outcome::Step;
use crate::access::AccessWidth;
use crate::state::rflags::CF;

/// Operations with two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binary {
    Add,
    AddWithCarry,
    Sub,
    SubWithBorrow,
    And,
    Or,
    Xor,
}

/// Operations with one operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unary {
    Increment,
    Decrement,
    Negate,
    Not,
}

impl Binary {
    fn compute(self, a: u64, b: u64, carry: bool, size: AccessWidth) -> Change {
        let bitwise = |value| (value, logic(value, size));
        let (value, flags) = match self {
            Self::Add => add(a, b, false, size),
            Self::AddWithCarry => add(a, b, carry, size),
            Self::Sub => sub(a, b, false, size),
            Self::SubWithBorrow => sub(a, b, carry, size),
            Self::And => bitwise(a & b),
            Self::Or => bitwise(a | b),
            Self::Xor => bitwise(a ^ b),
        };
        Change { value, flags }
    }
}

impl Unary {
    fn compute(self, a: u64, size: AccessWidth) -> Change {
        let (value, flags) = match self {
            Self::Increment => {
                let (value, flags) = add(a, 1, false, size);
                (value, flags.except(CF))
            }
            Self::Decrement => {
                let (value, flags) = sub(a, 1, false, size);
                (value, flags.except(CF))
            }
            Self::Negate => sub(0, a, false, size),
            Self::Not => (!a & size.mask(), FlagUpdate::NONE),
        };
        Change { value, flags }
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// ADD, ADC, SUB, SBB, AND, OR, XOR.
    pub fn binary(&mut self, operation: Binary) -> Step<()> {
        let size = self.place(0)?.size();
        let b = self.read_operand(1)? & size.mask();
        let carry = self.flag(CF);
        let locked = self.is_locked();
        self.modify_operand(0, locked, |a| operation.compute(a, b, carry, size)).map(drop)
    }

    /// CMP (as SUB) and TEST (as AND): only the flags change.
    pub fn compare(&mut self, operation: Binary) -> Step<()> {
        let size = self.place(0)?.size();
        let a = self.read_operand(0)?;
        let b = self.read_operand(1)? & size.mask();
        self.apply(operation.compute(a, b, false, size).flags);
        Ok(())
    }

    /// INC, DEC, NEG, NOT.
    pub fn unary(&mut self, operation: Unary) -> Step<()> {
        let size = self.place(0)?.size();
        let locked = self.is_locked();
        self.modify_operand(0, locked, |a| operation.compute(a, size)).map(drop)
    }
}
