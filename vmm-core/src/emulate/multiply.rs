// SPDX-License-Identifier: MIT OR Apache-2.0
//! MUL, IMUL, DIV and IDIV.

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::{FlagUpdate, when};
use super::outcome::Step;
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::state::rflags::{CF, OF};
use crate::state::{Exception, Gpr};

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// MUL, and IMUL with one operand.
    pub fn multiply_wide(&mut self, signed: bool) -> Step<()> {
        let size = self.place(0)?.size();
        let b = self.read_operand(0)?;
        let a = self.register(GprPart::new(Gpr::Rax, size));
        let (product, overflow) = if signed {
            let product = signed_product(a, b, size);
            (product as u128, !fits_signed(product, size))
        } else {
            let product = u128::from(a) * u128::from(b);
            (product, product > u128::from(size.mask()))
        };
        self.set_double_width(product, size);
        self.apply(FlagUpdate::new(CF | OF, when(overflow, CF | OF)));
        Ok(())
    }

    /// IMUL with two or three operands.
    pub fn multiply_truncated(&mut self) -> Step<()> {
        let destination = self.register_operand(0)?;
        let size = destination.size;
        let three = self.instruction.op_count() == 3;
        let a = self.read_operand(u32::from(three))? & size.mask();
        let b = self.read_operand(if three { 2 } else { 1 })? & size.mask();
        let product = signed_product(a, b, size);
        let overflow = !fits_signed(product, size);
        self.set_register(destination, product as u64);
        self.apply(FlagUpdate::new(CF | OF, when(overflow, CF | OF)));
        Ok(())
    }

    /// DIV and IDIV: #DE if the divisor is zero or the quotient does not fit.
    pub fn divide(&mut self, signed: bool) -> Step<()> {
        let size = self.place(0)?.size();
        let divisor = self.read_operand(0)?;
        let dividend = if size == AccessWidth::Byte {
            u128::from(self.register(GprPart::new(Gpr::Rax, AccessWidth::Word)))
        } else {
            self.register_pair(Gpr::Rdx, Gpr::Rax, size)
        };
        let result = if signed {
            divide_signed(dividend, divisor, size)
        } else {
            divide_unsigned(dividend, divisor, size)
        };
        let (quotient, remainder) = result.ok_or(Exception::DIVIDE)?;
        let high = u128::from(remainder & size.mask()) << size.bits();
        self.set_double_width(high | u128::from(quotient & size.mask()), size);
        Ok(())
    }

    /// Writes AX, or the pair of RDX and RAX at `size`.
    fn set_double_width(&mut self, value: u128, size: AccessWidth) {
        if size == AccessWidth::Byte {
            self.set_register(GprPart::new(Gpr::Rax, AccessWidth::Word), value as u64);
        } else {
            self.set_register(GprPart::new(Gpr::Rax, size), value as u64);
            self.set_register(GprPart::new(Gpr::Rdx, size), (value >> size.bits()) as u64);
        }
    }
}

fn signed(value: u64, size: AccessWidth) -> i128 {
    i128::from(size.sign_extend(value) as i64)
}

fn signed_product(a: u64, b: u64, size: AccessWidth) -> i128 {
    signed(a, size) * signed(b, size)
}

fn fits_signed(value: i128, size: AccessWidth) -> bool {
    signed(value as u64, size) == value
}

fn divide_unsigned(dividend: u128, divisor: u64, size: AccessWidth) -> Option<(u64, u64)> {
    let divisor = u128::from(divisor);
    let quotient = dividend.checked_div(divisor)?;
    let remainder = dividend.checked_rem(divisor)?;
    (quotient <= u128::from(size.mask())).then_some((quotient as u64, remainder as u64))
}

fn divide_signed(dividend: u128, divisor: u64, size: AccessWidth) -> Option<(u64, u64)> {
    let unused = 128 - 2 * size.bits();
    let dividend = ((dividend << unused) as i128) >> unused;
    let divisor = signed(divisor, size);
    let quotient = dividend.checked_div(divisor)?;
    let remainder = dividend.checked_rem(divisor)?;
    fits_signed(quotient, size).then_some((quotient as u64, remainder as u64))
}
