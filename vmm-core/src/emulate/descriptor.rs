// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segment descriptors and the tables they come from (Intel SDM vol. 3, 3.4.5).

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::memory::Span;
use super::outcome::{Step, Stop};
use super::segment::kind;
use crate::address::PAGE_SIZE;
use crate::paging::walk::{Access, AccessKind, Privilege};
use crate::state::{Exception, Segment, SegmentAttributes, SegmentRegister};

/// A selector (Intel SDM vol. 3, 3.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Selector(pub u16);

impl Selector {
    /// Requested privilege level.
    pub const fn level(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// The selector with another requested privilege level.
    pub const fn with_level(self, level: u8) -> Self {
        Self(self.0 & !3 | (level & 3) as u16)
    }

    /// It names no descriptor.
    pub const fn is_null(self) -> bool {
        self.0 & !3 == 0
    }

    /// Table indicator: the descriptor is in the LDT.
    pub const fn is_local(self) -> bool {
        self.0 & 4 != 0
    }

    const fn table_offset(self) -> u64 {
        (self.0 & !7) as u64
    }

    /// A fault whose error code is this selector.
    pub const fn fault(self, vector: u8) -> Exception {
        Exception::with_code(vector, (self.0 & !3) as u32)
    }

    /// #GP of this selector.
    pub const fn general_protection(self) -> Exception {
        self.fault(GENERAL_PROTECTION)
    }
}

/// Vectors of the faults that descriptors lead to.
pub(super) const NOT_PRESENT: u8 = 11;
pub(super) const STACK_FAULT: u8 = 12;
pub(super) const GENERAL_PROTECTION: u8 = 13;

/// Byte of a descriptor with type, S, DPL and P.
const RIGHTS_BYTE: u64 = 5;

/// A descriptor as it lies in its table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    raw: u64,
    /// Linear address.
    at: u64,
}

impl Descriptor {
    pub const fn attributes(&self) -> SegmentAttributes {
        let rights = self.raw >> 40 & 0xFF | (self.raw >> 52 & 0xF) << 8;
        SegmentAttributes::from_bits(rights as u32)
    }

    const fn base(&self) -> u64 {
        self.raw >> 16 & 0xFF_FFFF | (self.raw >> 56) << 24
    }

    /// The selector in a gate.
    pub const fn gate_selector(&self) -> Selector {
        Selector((self.raw >> 16) as u16)
    }

    /// What LAR loads: the upper half of the descriptor but its addresses.
    pub const fn rights(&self) -> u64 {
        self.raw >> 32 & 0x00F0_FF00
    }

    /// Limit in bytes.
    pub const fn limit(&self) -> u32 {
        let limit = (self.raw & 0xFFFF | self.raw >> 32 & 0xF_0000) as u32;
        if self.attributes().granularity() { limit << 12 | 0xFFF } else { limit }
    }

    pub const fn is_code(&self) -> bool {
        self.attributes().code_or_data() && self.attributes().kind() & kind::CODE != 0
    }

    pub const fn is_conforming(&self) -> bool {
        self.is_code() && self.attributes().kind() & kind::CONFORMING != 0
    }

    /// Data, or code that may be read.
    pub const fn is_readable(&self) -> bool {
        let readable = self.attributes().kind() & kind::READ_WRITE != 0;
        self.attributes().code_or_data() && (!self.is_code() || readable)
    }

    pub const fn is_writable(&self) -> bool {
        let attributes = self.attributes();
        attributes.code_or_data() && !self.is_code() && attributes.kind() & kind::READ_WRITE != 0
    }

    /// The segment that a register holds once the descriptor is loaded.
    pub const fn segment(&self, selector: Selector) -> Segment {
        Segment {
            selector: selector.0,
            limit: self.limit(),
            base: self.base(),
            attributes: self.attributes(),
        }
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Checks and translates bytes of a table that the CPU itself accesses.
    pub fn system_span(&mut self, linear: u64, length: u64, kind: AccessKind) -> Step<Span> {
        let access = Access { kind, privilege: Privilege::ImplicitSupervisor };
        let linear = self.mode.system_address(linear);
        let rest = PAGE_SIZE - linear % PAGE_SIZE;
        let second = self.mode.system_address(linear.wrapping_add(rest));
        let first = self.translate_as(linear, access)?;
        if rest >= length {
            return Ok(Span::single(first, length));
        }
        Ok(Span::crossing(first, rest, self.translate_as(second, access)?, length))
    }

    /// Reads up to 8 bytes of such a table.
    pub fn read_system(&mut self, linear: u64, length: u64) -> Step<u64> {
        let span = self.system_span(linear, length, AccessKind::Read)?;
        self.read_span(&span)
    }

    /// The descriptor that `selector`, which is not null, names; #GP of the selector if it is
    /// beyond the table.
    pub fn descriptor(&mut self, selector: Selector) -> Step<Descriptor> {
        self.descriptor_or(selector, selector.general_protection())
    }

    /// The same with another exception, `beyond`.
    pub fn descriptor_or(
        &mut self,
        selector: Selector,
        beyond: impl Into<Stop>,
    ) -> Step<Descriptor> {
        self.find_descriptor(selector)?.ok_or_else(|| beyond.into())
    }

    /// The same; none if it is beyond the table.
    pub fn find_descriptor(&mut self, selector: Selector) -> Step<Option<Descriptor>> {
        let (base, limit) = if selector.is_local() {
            let ldtr = self.cpu.segment(SegmentRegister::Ldtr);
            if ldtr.attributes.unusable() || !ldtr.attributes.present() {
                return Ok(None);
            }
            (ldtr.base, ldtr.limit)
        } else {
            let (gdtr, _) = self.cpu.descriptor_tables();
            (gdtr.base, gdtr.limit.into())
        };
        if selector.table_offset() + 7 > u64::from(limit) {
            return Ok(None);
        }
        let at = base.wrapping_add(selector.table_offset());
        Ok(Some(Descriptor { raw: self.read_system(at, 8)?, at }))
    }

    /// The place of the byte with a descriptor's type, checked for writing.
    pub fn descriptor_rights(&mut self, descriptor: &Descriptor) -> Step<Span> {
        self.system_span(descriptor.at.wrapping_add(RIGHTS_BYTE), 1, AccessKind::Write)
    }

    /// The place of that byte of the descriptor that `selector` names in the GDT, as it was when
    /// it was loaded.
    pub fn rights_in_gdt(&mut self, selector: Selector) -> Step<Span> {
        let (gdtr, _) = self.cpu.descriptor_tables();
        let at = gdtr.base.wrapping_add(selector.table_offset() + RIGHTS_BYTE);
        self.system_span(at, 1, AccessKind::Write)
    }

    /// The upper half of a base address, which a system descriptor of long mode, in the GDT, has
    /// in the 8 bytes behind it (Intel SDM vol. 3, figure 7-4): #GP of the selector if these are
    /// beyond the table, or not of type zero.
    pub fn upper_base(&mut self, selector: Selector, descriptor: &Descriptor) -> Step<u64> {
        const TYPE: u64 = 0x1F << 40;
        let (gdtr, _) = self.cpu.descriptor_tables();
        if selector.table_offset() + 15 > u64::from(gdtr.limit) {
            return Err(selector.general_protection().into());
        }
        let upper = self.read_system(descriptor.at.wrapping_add(8), 8)?;
        if upper & TYPE != 0 {
            return Err(selector.general_protection().into());
        }
        Ok(upper << 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_read_as_the_manual_lays_them_out() {
        let flat = Descriptor { raw: 0x12CF_9B34_5678_FFFF, at: 0 };
        let segment = flat.segment(Selector(0x10));
        assert_eq!((segment.base, segment.limit), (0x1234_5678, 0xFFFF_FFFF));
        assert_eq!(u32::from(segment.attributes), 0xC9B);
        assert!(flat.is_code() && flat.is_readable() && !flat.is_writable());
        let small = Descriptor { raw: 0x0000_9300_0000_1234, at: 0 };
        assert_eq!(small.limit(), 0x1234);
        assert!(small.is_writable() && !small.is_code() && !small.is_conforming());
    }

    #[test]
    fn selectors_name_a_table_and_a_level() {
        let selector = Selector(0x2F);
        assert!(selector.is_local() && selector.level() == 3 && !selector.is_null());
        assert_eq!(selector.table_offset(), 0x28);
        assert_eq!(selector.with_level(0), Selector(0x2C));
        assert_eq!(selector.general_protection(), Exception::with_code(13, 0x2C));
        assert!(Selector(3).is_null());
    }
}
