// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layout of the XSAVE area (Intel SDM vol. 1, 13.4; AMD APM vol. 2, 11.5.2).

use alloc::vec::Vec;

use super::{
    CpuidResult,
    features::{leaf1_ecx, xsave_eax},
    table::Leaf,
};

/// x87 state.
pub const XSTATE_X87: u64 = 1 << 0;
/// SSE state.
pub const XSTATE_SSE: u64 = 1 << 1;
/// AVX state: the upper halves of YMM registers.
pub const XSTATE_AVX: u64 = 1 << 2;
/// AVX-512 state: opmask registers, upper halves of ZMM0–15, and ZMM16–31.
pub const XSTATE_AVX512: u64 = 7 << 5;

/// Legacy region and XSAVE header.
const HEADER_END: u32 = 576;
/// Components with their own subleaf end below this number.
const COMPONENTS: u32 = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Component {
    size: u32,
    offset: u32,
    aligned: bool,
}

/// Which components a guest may enable and where the host CPU puts them.
#[derive(Clone, Copy, Debug)]
pub(super) struct XsaveLayout {
    supported: u64,
    components: [Component; COMPONENTS as usize],
    instructions: u32,
}

impl XsaveLayout {
    /// The layout on a host; nothing is supported if the host lacks XSAVE.
    pub(super) fn of(host: &dyn Fn(u32, u32) -> CpuidResult) -> Self {
        let mut layout = Self { supported: 0, components: Default::default(), instructions: 0 };
        if host(0, 0).eax < 0xD || host(1, 0).ecx & leaf1_ecx::XSAVE == 0 {
            return layout;
        }
        const WIDE: u64 = XSTATE_AVX | XSTATE_AVX512;
        let main = host(0xD, 0);
        let host_supports = u64::from(main.eax) | u64::from(main.edx) << 32;
        layout.supported = XSTATE_X87 | XSTATE_SSE | host_supports & XSTATE_AVX;
        if host_supports & WIDE == WIDE {
            layout.supported |= XSTATE_AVX512;
        }
        layout.instructions =
            host(0xD, 1).eax & (xsave_eax::XSAVEOPT | xsave_eax::XSAVEC | xsave_eax::XGETBV_ECX1);
        for number in 2..COMPONENTS {
            if layout.supported >> number & 1 != 0 {
                let r = host(0xD, number);
                layout.components[number as usize] =
                    Component { size: r.eax, offset: r.ebx, aligned: r.ecx & 2 != 0 };
            }
        }
        layout
    }

    pub(super) const fn supported(&self) -> u64 {
        self.supported
    }

    /// Bytes of the standard-format area for the components in `xcr0`.
    pub(super) fn standard_size(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).map(|c| c.offset.saturating_add(c.size)).fold(HEADER_END, u32::max)
    }

    /// Bytes of the compacted-format area for the components in `xcr0`.
    pub(super) fn compacted_size(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).fold(HEADER_END, |end, component| {
            let start = if component.aligned { end.next_multiple_of(64) } else { end };
            start.saturating_add(component.size)
        })
    }

    /// Leaf 0xD. The sizes for the current XCR0 are filled in per query.
    pub(super) fn leaf(&self) -> Leaf {
        if self.supported == 0 {
            return Leaf::Absent;
        }
        let (low, high) = (self.supported as u32, (self.supported >> 32) as u32);
        let main = CpuidResult::new(low, 0, self.standard_size(self.supported), high);
        let mut subleaves: Vec<_> = self
            .components
            .iter()
            .map(|c| CpuidResult::new(c.size, c.offset, u32::from(c.aligned) << 1, 0))
            .collect();
        subleaves[0] = main;
        subleaves[1] = CpuidResult::new(self.instructions, 0, 0, 0);
        Leaf::Indexed(subleaves)
    }

    fn enabled(&self, xcr0: u64) -> impl Iterator<Item = &Component> {
        let enabled = xcr0 & self.supported;
        self.components.iter().enumerate().filter(move |(n, _)| enabled >> n & 1 != 0).map(|p| p.1)
    }
}
