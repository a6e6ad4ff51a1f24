// SPDX-License-Identifier: MIT OR Apache-2.0
//! Condition codes, SETcc and CMOVcc.

use iced_x86::Mnemonic;

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::outcome::Step;
use crate::state::rflags::{CF, OF, PF, SF, ZF};

/// Condition codes in pairs; the odd encodings are the negations (AMD APM vol. 3, table 1-7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Test {
    Overflow,
    Below,
    Zero,
    BelowOrEqual,
    Sign,
    Parity,
    Less,
    LessOrEqual,
}

/// A condition code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    test: Test,
    negated: bool,
}

impl Condition {
    /// The condition of a SETcc.
    pub fn of_set(mnemonic: Mnemonic) -> Option<Self> {
        let (test, negated) = match mnemonic {
            Mnemonic::Seto => (Test::Overflow, false),
            Mnemonic::Setno => (Test::Overflow, true),
            Mnemonic::Setb => (Test::Below, false),
            Mnemonic::Setae => (Test::Below, true),
            Mnemonic::Sete => (Test::Zero, false),
            Mnemonic::Setne => (Test::Zero, true),
            Mnemonic::Setbe => (Test::BelowOrEqual, false),
            Mnemonic::Seta => (Test::BelowOrEqual, true),
            Mnemonic::Sets => (Test::Sign, false),
            Mnemonic::Setns => (Test::Sign, true),
            Mnemonic::Setp => (Test::Parity, false),
            Mnemonic::Setnp => (Test::Parity, true),
            Mnemonic::Setl => (Test::Less, false),
            Mnemonic::Setge => (Test::Less, true),
            Mnemonic::Setle => (Test::LessOrEqual, false),
            Mnemonic::Setg => (Test::LessOrEqual, true),
            _ => return None,
        };
        Some(Self { test, negated })
    }

    /// The condition of a CMOVcc.
    pub fn of_move(mnemonic: Mnemonic) -> Option<Self> {
        let (test, negated) = match mnemonic {
            Mnemonic::Cmovo => (Test::Overflow, false),
            Mnemonic::Cmovno => (Test::Overflow, true),
            Mnemonic::Cmovb => (Test::Below, false),
            Mnemonic::Cmovae => (Test::Below, true),
            Mnemonic::Cmove => (Test::Zero, false),
            Mnemonic::Cmovne => (Test::Zero, true),
            Mnemonic::Cmovbe => (Test::BelowOrEqual, false),
            Mnemonic::Cmova => (Test::BelowOrEqual, true),
            Mnemonic::Cmovs => (Test::Sign, false),
            Mnemonic::Cmovns => (Test::Sign, true),
            Mnemonic::Cmovp => (Test::Parity, false),
            Mnemonic::Cmovnp => (Test::Parity, true),
            Mnemonic::Cmovl => (Test::Less, false),
            Mnemonic::Cmovge => (Test::Less, true),
            Mnemonic::Cmovle => (Test::LessOrEqual, false),
            Mnemonic::Cmovg => (Test::LessOrEqual, true),
            _ => return None,
        };
        Some(Self { test, negated })
    }

    /// The condition of a Jcc.
    pub fn of_jump(mnemonic: Mnemonic) -> Option<Self> {
        let (test, negated) = match mnemonic {
            Mnemonic::Jo => (Test::Overflow, false),
            Mnemonic::Jno => (Test::Overflow, true),
            Mnemonic::Jb => (Test::Below, false),
            Mnemonic::Jae => (Test::Below, true),
            Mnemonic::Je => (Test::Zero, false),
            Mnemonic::Jne => (Test::Zero, true),
            Mnemonic::Jbe => (Test::BelowOrEqual, false),
            Mnemonic::Ja => (Test::BelowOrEqual, true),
            Mnemonic::Js => (Test::Sign, false),
            Mnemonic::Jns => (Test::Sign, true),
            Mnemonic::Jp => (Test::Parity, false),
            Mnemonic::Jnp => (Test::Parity, true),
            Mnemonic::Jl => (Test::Less, false),
            Mnemonic::Jge => (Test::Less, true),
            Mnemonic::Jle => (Test::LessOrEqual, false),
            Mnemonic::Jg => (Test::LessOrEqual, true),
            _ => return None,
        };
        Some(Self { test, negated })
    }

    /// Whether the condition holds under `flags`.
    pub fn holds(self, flags: u64) -> bool {
        let set = |bit| flags & bit != 0;
        let less = set(SF) != set(OF);
        let result = match self.test {
            Test::Overflow => set(OF),
            Test::Below => set(CF),
            Test::Zero => set(ZF),
            Test::BelowOrEqual => set(CF) || set(ZF),
            Test::Sign => set(SF),
            Test::Parity => set(PF),
            Test::Less => less,
            Test::LessOrEqual => less || set(ZF),
        };
        result != self.negated
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// SETcc.
    pub fn set_on_condition(&mut self, condition: Condition) -> Step<()> {
        self.write_operand(0, u64::from(condition.holds(self.flags)))
    }

    /// CMOVcc: the source is always read, and a 32-bit destination is always zero-extended.
    pub fn move_on_condition(&mut self, condition: Condition) -> Step<()> {
        let destination = self.register_operand(0)?;
        let source = self.read_operand(1)?;
        let kept = self.register(destination);
        self.set_register(destination, if condition.holds(self.flags) { source } else { kept });
        Ok(())
    }
}
