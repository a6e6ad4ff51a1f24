// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shifts and rotates.

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::{FlagUpdate, STATUS, sign_zero_parity, when};
use super::memory::Change;
use super::outcome::Step;
use crate::access::AccessWidth;
use crate::state::rflags::{AF, CF, OF};

/// Shifts and rotates with a count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shift {
    Left,
    Right,
    ArithmeticRight,
    RotateLeft,
    RotateRight,
    RotateCarryLeft,
    RotateCarryRight,
}

impl Shift {
    /// `count` is already masked to 5 or 6 bits.
    fn compute(self, value: u64, count: u32, carry: bool, size: AccessWidth) -> Change {
        if count == 0 {
            return Change { value, flags: FlagUpdate::NONE };
        }
        match self {
            Self::Left => shift_left(value, count, size),
            Self::Right => shift_right(value, count, size),
            Self::ArithmeticRight => shift_arithmetic(value, count, size),
            Self::RotateLeft => rotate_left(value, count, size),
            Self::RotateRight => rotate_right(value, count, size),
            Self::RotateCarryLeft => rotate_carry_left(value, count, carry, size),
            Self::RotateCarryRight => rotate_carry_right(value, count, carry, size),
        }
    }
}

/// Result with all status flags; AF is undefined and kept.
fn shifted(value: u64, carry: bool, overflow: bool, size: AccessWidth) -> Change {
    let value = value & size.mask();
    let flags = sign_zero_parity(value, size) | when(carry, CF) | when(overflow, OF);
    Change { value, flags: FlagUpdate::new(STATUS & !AF, flags) }
}

/// Result of a rotate, which changes CF and OF only.
fn rotated(value: u64, carry: bool, overflow: bool) -> Change {
    let flags = FlagUpdate::new(CF | OF, when(carry, CF) | when(overflow, OF));
    Change { value, flags }
}

fn shift_left(value: u64, count: u32, size: AccessWidth) -> Change {
    let wide = u128::from(value) << count;
    let carry = wide >> size.bits() & 1 != 0;
    let negative = wide as u64 & size.sign_bit() != 0;
    shifted(wide as u64, carry, negative != carry, size)
}

fn shift_right(value: u64, count: u32, size: AccessWidth) -> Change {
    let carry = value >> (count - 1) & 1 != 0;
    shifted(value >> count, carry, value & size.sign_bit() != 0, size)
}

fn shift_arithmetic(value: u64, count: u32, size: AccessWidth) -> Change {
    let signed = size.sign_extend(value) as i64;
    let carry = signed >> (count - 1) & 1 != 0;
    shifted((signed >> count) as u64, carry, false, size)
}

fn rotate_left(value: u64, count: u32, size: AccessWidth) -> Change {
    let count = count % size.bits();
    let doubled = u128::from(value) << size.bits() | u128::from(value);
    let result = (doubled << count >> size.bits()) as u64 & size.mask();
    let carry = result & 1 != 0;
    rotated(result, carry, (result & size.sign_bit() != 0) != carry)
}

fn rotate_right(value: u64, count: u32, size: AccessWidth) -> Change {
    let count = count % size.bits();
    let doubled = u128::from(value) << size.bits() | u128::from(value);
    let result = (doubled >> count) as u64 & size.mask();
    let carry = result & size.sign_bit() != 0;
    rotated(result, carry, carry != (result << 1 & size.sign_bit() != 0))
}

/// Rotates CF and `value` left by `count`, at most the bits of both: the new value and CF.
fn through_carry(value: u64, count: u32, carry: bool, size: AccessWidth) -> (u64, bool) {
    let turn = size.bits() + 1;
    let both = u128::from(value) | (u128::from(carry) << size.bits());
    let result = (both << count) | (both >> (turn - count));
    (result as u64 & size.mask(), (result >> size.bits()) & 1 != 0)
}

fn rotate_carry_left(value: u64, count: u32, carry: bool, size: AccessWidth) -> Change {
    let count = count % (size.bits() + 1);
    if count == 0 {
        return Change { value, flags: FlagUpdate::NONE };
    }
    let (result, carry) = through_carry(value, count, carry, size);
    rotated(result, carry, (result & size.sign_bit() != 0) != carry)
}

fn rotate_carry_right(value: u64, count: u32, carry: bool, size: AccessWidth) -> Change {
    let turn = size.bits() + 1;
    let count = count % turn;
    if count == 0 {
        return Change { value, flags: FlagUpdate::NONE };
    }
    let (result, carry) = through_carry(value, turn - count, carry, size);
    rotated(result, carry, (result ^ (result << 1)) & size.sign_bit() != 0)
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// SHL, SHR, SAR, ROL, ROR, RCL, RCR.
    pub fn shift(&mut self, shift: Shift) -> Step<()> {
        let size = self.place(0)?.size();
        let count = self.shift_count(1, size)?;
        let carry = self.flag(CF);
        self.modify_operand(0, false, |value| shift.compute(value, count, carry, size)).map(drop)
    }

    /// SHLD and SHRD.
    pub fn shift_double(&mut self, left: bool) -> Step<()> {
        let source = self.register_operand(1)?;
        let size = source.size;
        let fill = self.register(source);
        let count = self.shift_count(2, size)?;
        let compute = |value| match (count, left) {
            (0, _) => Change { value, flags: FlagUpdate::NONE },
            (_, true) => double_left(value, fill, count, size),
            (_, false) => double_right(value, fill, count, size),
        };
        self.modify_operand(0, false, compute).map(drop)
    }

    fn shift_count(&mut self, operand: u32, size: AccessWidth) -> Step<u32> {
        let mask = if size == AccessWidth::Qword { 63 } else { 31 };
        Ok(self.read_operand(operand)? as u32 & mask)
    }
}

/// With 16 bits and a count above 16 the result is undefined; bits of `value` follow those of
/// `fill`, as on most processors.
fn double_left(value: u64, fill: u64, count: u32, size: AccessWidth) -> Change {
    let bits = size.bits();
    let again = if size == AccessWidth::Word { u128::from(value) } else { 0 };
    let pair = u128::from(value) << bits | u128::from(fill);
    let result = (pair << count | again << count >> bits) >> bits;
    let carry = u128::from(value) << bits >> (2 * bits - count) & 1 != 0;
    let overflow = (value ^ result as u64) & size.sign_bit() != 0;
    shifted(result as u64, carry, overflow, size)
}

fn double_right(value: u64, fill: u64, count: u32, size: AccessWidth) -> Change {
    let bits = size.bits();
    let again = if size == AccessWidth::Word { u128::from(value) << 32 } else { 0 };
    let pair = again | u128::from(fill) << bits | u128::from(value);
    let result = (pair >> count) as u64;
    let carry = pair >> (count - 1) & 1 != 0;
    let overflow = (value ^ result) & size.sign_bit() != 0;
    shifted(result, carry, overflow, size)
}
