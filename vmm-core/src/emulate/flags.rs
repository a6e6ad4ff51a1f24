// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arithmetic with status flags (AMD APM vol. 3, the description of each instruction).
//!
//! Where the architecture leaves a flag undefined, it is cleared or kept.

use crate::access::AccessWidth;
use crate::state::rflags::{AF, CF, OF, PF, SF, ZF};

/// All status flags.
pub(super) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// New values for the flags in `mask`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct FlagUpdate {
    pub mask: u64,
    pub value: u64,
}

impl FlagUpdate {
    /// No flag changes.
    pub const NONE: Self = Self { mask: 0, value: 0 };

    pub const fn new(mask: u64, value: u64) -> Self {
        Self { mask, value }
    }

    /// The same update without the flags in `keep`.
    pub const fn except(self, keep: u64) -> Self {
        Self { mask: self.mask & !keep, value: self.value }
    }
}

/// `flag` if `condition` holds.
pub(super) const fn when(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

/// SF, ZF and PF of a result.
pub(super) fn sign_zero_parity(value: u64, size: AccessWidth) -> u64 {
    when(value & size.sign_bit() != 0, SF)
        | when(value & size.mask() == 0, ZF)
        | when((value as u8).count_ones().is_multiple_of(2), PF)
}

/// `a + b + carry`.
pub(super) fn add(a: u64, b: u64, carry: bool, size: AccessWidth) -> (u64, FlagUpdate) {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let result = wide as u64 & size.mask();
    let flags = sign_zero_parity(result, size)
        | when(wide > u128::from(size.mask()), CF)
        | when((a ^ b ^ result) & 0x10 != 0, AF)
        | when((a ^ result) & (b ^ result) & size.sign_bit() != 0, OF);
    (result, FlagUpdate::new(STATUS, flags))
}

/// `a - b - borrow`.
pub(super) fn sub(a: u64, b: u64, borrow: bool, size: AccessWidth) -> (u64, FlagUpdate) {
    let result = a.wrapping_sub(b).wrapping_sub(u64::from(borrow)) & size.mask();
    let flags = sign_zero_parity(result, size)
        | when(u128::from(a) < u128::from(b) + u128::from(borrow), CF)
        | when((a ^ b ^ result) & 0x10 != 0, AF)
        | when((a ^ b) & (a ^ result) & size.sign_bit() != 0, OF);
    (result, FlagUpdate::new(STATUS, flags))
}

/// Flags of AND, OR, XOR and TEST: CF and OF are cleared.
pub(super) fn logic(result: u64, size: AccessWidth) -> FlagUpdate {
    FlagUpdate::new(STATUS, sign_zero_parity(result, size))
}
