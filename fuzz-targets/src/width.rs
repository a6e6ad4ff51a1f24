// SPDX-License-Identifier: MIT OR Apache-2.0
//! Widths of accesses, drawn from an input.

use arbitrary::Arbitrary;
use vmm_core::AccessWidth;

/// Width of an access.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
    /// 64 bits.
    Qword,
}

impl From<Width> for AccessWidth {
    fn from(width: Width) -> Self {
        match width {
            Width::Byte => Self::Byte,
            Width::Word => Self::Word,
            Width::Dword => Self::Dword,
            Width::Qword => Self::Qword,
        }
    }
}
