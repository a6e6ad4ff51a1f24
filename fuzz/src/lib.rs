// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the fuzz targets share.

use std::sync::OnceLock;

use arbitrary::Arbitrary;
use host_mock::MockHost;
use vmm_core::AccessWidth;

/// The one mock host of this process, which outlives all inputs.
pub fn host() -> &'static MockHost {
    static HOST: OnceLock<&'static MockHost> = OnceLock::new();
    HOST.get_or_init(|| MockHost::leak(4))
}

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
