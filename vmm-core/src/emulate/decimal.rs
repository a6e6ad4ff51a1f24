// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decimal arithmetic: AAA, AAS, AAM, AAD, DAA, DAS (Intel SDM vol. 2). The decoder knows them
//! outside 64-bit mode only.

use iced_x86::Mnemonic;

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::{FlagUpdate, sign_zero_parity, when};
use super::outcome::Step;
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::state::rflags::{AF, CF, PF, SF, ZF};
use crate::state::{Exception, Gpr};

const AL: GprPart = GprPart::new(Gpr::Rax, AccessWidth::Byte);
const AX: GprPart = GprPart::new(Gpr::Rax, AccessWidth::Word);

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// The instructions of this file; `None` if this is none of them.
    pub fn decimal(&mut self, mnemonic: Mnemonic) -> Option<Step<()>> {
        match mnemonic {
            // AX changes as a whole: the carry out of AL goes into AH.
            Mnemonic::Aaa => self.adjust_unpacked(0x106),
            Mnemonic::Aas => self.adjust_unpacked(0x106_u64.wrapping_neg()),
            Mnemonic::Daa => self.adjust_packed(|al, by| al.overflowing_add(by)),
            Mnemonic::Das => self.adjust_packed(|al, by| al.overflowing_sub(by)),
            Mnemonic::Aam => return Some(self.split_digits()),
            Mnemonic::Aad => return Some(self.join_digits()),
            _ => return None,
        }
        Some(Ok(()))
    }

    fn low_digit_overflows(&self) -> bool {
        self.register(AL) & 0xF > 9 || self.flag(AF)
    }

    /// AAA and AAS; `correction` is added to AX.
    fn adjust_unpacked(&mut self, correction: u64) {
        let carry = self.low_digit_overflows();
        let ax = self.register(AX).wrapping_add(if carry { correction } else { 0 });
        self.set_register(AX, ax & 0xFF0F);
        self.apply(FlagUpdate::new(AF | CF, when(carry, AF | CF)));
    }

    /// DAA and DAS; `correct` adds or subtracts and tells of a carry.
    fn adjust_packed(&mut self, correct: impl Fn(u8, u8) -> (u8, bool)) {
        let old = self.register(AL) as u8;
        let old_carry = self.flag(CF);
        let low = self.low_digit_overflows();
        let high = old > 0x99 || old_carry;
        let (mut al, mut carry) = (old, false);
        if low {
            let (value, overflow) = correct(al, 6);
            (al, carry) = (value, old_carry || overflow);
        }
        if high {
            (al, carry) = (correct(al, 0x60).0, true);
        }
        self.set_register(AL, al.into());
        let flags = sign_zero_parity(al.into(), AccessWidth::Byte);
        let value = flags | when(low, AF) | when(carry, CF);
        self.apply(FlagUpdate::new(SF | ZF | PF | AF | CF, value));
    }

    /// AAM: #DE if the base is zero.
    fn split_digits(&mut self) -> Step<()> {
        let base = self.read_operand(0)? & 0xFF;
        let al = self.register(AL);
        let high = al.checked_div(base).ok_or(Exception::DIVIDE)?;
        let low = al % base;
        self.set_register(AX, high << 8 | low);
        self.set_digit_flags(low);
        Ok(())
    }

    /// AAD.
    fn join_digits(&mut self) -> Step<()> {
        let base = self.read_operand(0)? & 0xFF;
        let ax = self.register(AX);
        let value = (ax & 0xFF).wrapping_add((ax >> 8) * base) & 0xFF;
        self.set_register(AX, value);
        self.set_digit_flags(value);
        Ok(())
    }

    fn set_digit_flags(&mut self, value: u64) {
        let flags = sign_zero_parity(value, AccessWidth::Byte);
        self.apply(FlagUpdate::new(SF | ZF | PF, flags));
    }
}
