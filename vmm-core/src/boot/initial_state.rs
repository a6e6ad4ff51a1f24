// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state in which a vCPU starts.

use crate::{
    Vector,
    state::{
        ControlRegisters, DescriptorTable, Gpr, Segment, SegmentAttributes, SegmentRegister, cr0,
        cr4, efer, rflags,
    },
};

/// The registers of a vCPU before its first instruction; all others have their reset values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitialState {
    /// General-purpose registers, by [`Gpr`].
    pub gprs: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Control registers and EFER.
    pub control: ControlRegisters,
    /// Segment registers, by [`SegmentRegister`].
    pub segments: [Segment; 8],
    /// Global descriptor table register.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table register.
    pub idtr: DescriptorTable,
}

/// Segment types (AMD APM vol. 2, 4.7 and 4.8).
const DATA_WRITABLE_ACCESSED: u8 = 3;
const CODE_READABLE_ACCESSED: u8 = 11;
const LDT: u8 = 2;
const BUSY_TSS: u8 = 11;

const fn segment(selector: u16, base: u64, limit: u32, attributes: SegmentAttributes) -> Segment {
    Segment { selector, limit, base, attributes }
}

const fn memory_segment(kind: u8) -> SegmentAttributes {
    SegmentAttributes::new().with_kind(kind).with_code_or_data(true).with_present(true)
}

const fn system_segment(kind: u8) -> SegmentAttributes {
    SegmentAttributes::new().with_kind(kind).with_present(true)
}

impl InitialState {
    /// The state after reset (AMD APM vol. 2, table 14-1): real mode, about to execute at
    /// the top of the first 4 GiB. RDX is zero; see
    /// [`with_signature`](Self::with_signature).
    pub const fn reset() -> Self {
        let data = segment(0, 0, 0xFFFF, memory_segment(DATA_WRITABLE_ACCESSED));
        let code = memory_segment(CODE_READABLE_ACCESSED);
        let mut segments = [data; 8];
        segments[SegmentRegister::Cs as usize] = segment(0xF000, 0xFFFF_0000, 0xFFFF, code);
        segments[SegmentRegister::Ldtr as usize] = segment(0, 0, 0xFFFF, system_segment(LDT));
        segments[SegmentRegister::Tr as usize] = segment(0, 0, 0xFFFF, system_segment(BUSY_TSS));
        let table = DescriptorTable { base: 0, limit: 0xFFFF };
        Self {
            gprs: [0; 16],
            rip: 0xFFF0,
            rflags: rflags::FIXED,
            control: ControlRegisters {
                cr0: cr0::CD | cr0::NW | cr0::ET,
                cr2: 0,
                cr3: 0,
                cr4: 0,
                efer: 0,
            },
            segments,
            gdtr: table,
            idtr: table,
        }
    }

    /// The state after INIT and a start-up IPI with `vector`: as after reset, but about to
    /// execute at the start of page number `vector` (AMD APM vol. 2, 15.27.8).
    pub const fn startup(vector: Vector) -> Self {
        let mut state = Self::reset();
        let code = memory_segment(CODE_READABLE_ACCESSED);
        let page = vector.0 as u16;
        state.segments[SegmentRegister::Cs as usize] =
            segment(page << 8, (page as u64) << 12, 0xFFFF, code);
        state.rip = 0;
        state
    }

    /// The same state with the processor signature, EAX of CPUID leaf 1, in RDX, where reset
    /// and INIT leave it.
    pub const fn with_signature(mut self, signature: u32) -> Self {
        self.gprs[Gpr::Rdx as usize] = signature as u64;
        self
    }

    /// Real mode, interrupts disabled, about to execute at `entry`, which is below 1 MiB. All
    /// segments are the 64 KiB block in which it lies.
    pub(super) const fn real_mode(entry: u32) -> Self {
        let block = entry & 0xF_0000;
        let selector = (block >> 4) as u16;
        let mut state = Self::reset();
        let mut index = SegmentRegister::Es as usize;
        while index <= SegmentRegister::Gs as usize {
            let attributes = state.segments[index].attributes;
            state.segments[index] = segment(selector, block as u64, 0xFFFF, attributes);
            index += 1;
        }
        state.rip = (entry & 0xFFFF) as u64;
        // The table of interrupt vectors at address zero, as the BIOS leaves it.
        state.idtr = DescriptorTable { base: 0, limit: 0x3FF };
        state.control.cr0 = cr0::ET;
        state
    }

    /// Flat 32-bit protected mode without paging, interrupts disabled, about to execute at
    /// `entry`. The selectors are those of no table; the guest loads its own.
    pub(super) const fn protected_mode(entry: u32) -> Self {
        let table = DescriptorTable { base: 0, limit: 0xFFFF };
        Self::protected_mode_on(entry, table, 0x08, 0x10)
    }

    /// The same with the selectors `code` and `data` of the table `gdtr`.
    pub(super) const fn protected_mode_on(
        entry: u32,
        gdtr: DescriptorTable,
        code: u16,
        data: u16,
    ) -> Self {
        let attributes = memory_segment(CODE_READABLE_ACCESSED).with_default_big(true);
        let mut state = Self::reset().with_flat_segments(code, attributes, data);
        state.rip = entry as u64;
        state.gdtr = gdtr;
        state.control.cr0 = cr0::PE | cr0::ET;
        state
    }

    /// 64-bit mode on the page tables at `page_tables`, interrupts disabled, about to execute
    /// at `entry` with the selectors `code` and `data` of the table `gdtr`.
    pub(super) const fn long_mode(
        entry: u64,
        page_tables: u64,
        gdtr: DescriptorTable,
        code: u16,
        data: u16,
    ) -> Self {
        let attributes = memory_segment(CODE_READABLE_ACCESSED).with_long(true);
        let mut state = Self::reset().with_flat_segments(code, attributes, data);
        state.rip = entry;
        state.gdtr = gdtr;
        state.idtr = DescriptorTable { base: 0, limit: 0 };
        state.control.cr0 = cr0::PE | cr0::ET | cr0::PG;
        state.control.cr3 = page_tables;
        state.control.cr4 = cr4::PAE;
        state.control.efer = efer::LME | efer::LMA;
        state
    }

    const fn with_flat_segments(mut self, code: u16, kind: SegmentAttributes, data: u16) -> Self {
        let data_kind = memory_segment(DATA_WRITABLE_ACCESSED).with_default_big(true);
        let data = segment(data, 0, u32::MAX, data_kind.with_granularity(true));
        let mut index = SegmentRegister::Es as usize;
        while index <= SegmentRegister::Gs as usize {
            self.segments[index] = data;
            index += 1;
        }
        self.segments[SegmentRegister::Cs as usize] =
            segment(code, 0, u32::MAX, kind.with_granularity(true));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_starts_at_the_reset_vector_in_real_mode() {
        let state = InitialState::reset().with_signature(0x0080_0F12);
        let cs = state.segments[SegmentRegister::Cs as usize];
        assert_eq!(cs.base + state.rip, 0xFFFF_FFF0);
        assert_eq!(state.control.cr0, 0x6000_0010);
        assert_eq!(state.gprs[Gpr::Rdx as usize], 0x0080_0F12);
        assert_eq!(u32::from(cs.attributes), 0x9B);
        let ds = state.segments[SegmentRegister::Ds as usize];
        assert_eq!(u32::from(ds.attributes), 0x93);
        assert_eq!(u32::from(state.segments[SegmentRegister::Tr as usize].attributes), 0x8B);
    }

    #[test]
    fn startup_executes_at_the_page_of_its_vector() {
        let state = InitialState::startup(Vector(0x9A));
        let cs = state.segments[SegmentRegister::Cs as usize];
        assert_eq!((cs.selector, cs.base, state.rip), (0x9A00, 0x9_A000, 0));
    }

    #[test]
    fn descriptors_match_their_hidden_parts() {
        let table = DescriptorTable { base: 0x1000, limit: 31 };
        let state = InitialState::long_mode(0x100_0200, 0x8000, table, 0x10, 0x18);
        let cs = state.segments[SegmentRegister::Cs as usize];
        assert_eq!(u32::from(cs.attributes), 0xA9B);
        assert_eq!(u32::from(state.segments[SegmentRegister::Ss as usize].attributes), 0xC93);
        let state = InitialState::protected_mode(0x10_0000);
        let cs = state.segments[SegmentRegister::Cs as usize];
        assert_eq!((u32::from(cs.attributes), cs.limit), (0xC9B, u32::MAX));
        assert_eq!(state.control.cr0, 0x11);
    }
}
