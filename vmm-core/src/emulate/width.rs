// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operand widths in arithmetic.

use crate::access::AccessWidth;

impl AccessWidth {
    /// The width in bytes, as arithmetic on addresses and counts needs it.
    pub(super) const fn length(self) -> u64 {
        self.bytes() as u64
    }

    /// The width in bits.
    pub(super) const fn bits(self) -> u32 {
        self.bytes() as u32 * 8
    }

    /// A mask of all bits of a value of this width.
    pub(super) const fn mask(self) -> u64 {
        self.all_ones()
    }

    /// The most significant bit of a value of this width.
    pub(super) const fn sign_bit(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// `value`, of this width, sign-extended to 64 bits.
    pub(super) const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits();
        (((value << unused) as i64) >> unused) as u64
    }
}
