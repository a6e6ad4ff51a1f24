// SPDX-License-Identifier: MIT OR Apache-2.0
//! From segment and offset to a linear address, with all checks.

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::outcome::Step;
use crate::address::GuestVirtAddr;
use crate::paging::walk::AccessKind;
use crate::state::{Exception, Segment, SegmentRegister};

/// Bits of the type field of a code or data descriptor (AMD APM vol. 2, 4.7).
pub(super) mod kind {
    /// Code, else data.
    pub const CODE: u8 = 1 << 3;
    /// Data: the valid offsets lie above the limit.
    pub const EXPAND_DOWN: u8 = 1 << 2;
    /// Code: may be called from less privileged code.
    pub const CONFORMING: u8 = 1 << 2;
    /// Data: writable. Code: readable.
    pub const READ_WRITE: u8 = 1 << 1;
    /// The segment was loaded since the bit was cleared.
    pub const ACCESSED: u8 = 1 << 0;
}

/// Types of system descriptors (Intel SDM vol. 3, table 3-2).
pub(super) mod system {
    pub const TSS_16: u8 = 1;
    pub const LDT: u8 = 2;
    pub const CALL_GATE_16: u8 = 4;
    pub const TASK_GATE: u8 = 5;
    /// In long mode the only TSS: that of 64 bits.
    pub const TSS_32: u8 = 9;
    pub const CALL_GATE: u8 = 12;
    /// Set in the type of a TSS: its task runs, or waits for one that it called.
    pub const BUSY: u8 = 1 << 1;
    /// Set in the types that are not of 16 bits.
    pub const IS_32_BIT: u8 = 1 << 3;

    /// True for a TSS, busy or not.
    pub const fn is_tss(kind: u8) -> bool {
        matches!(kind & !BUSY, TSS_16 | TSS_32)
    }
}

/// Exception for a violated segment check.
fn violation(register: SegmentRegister) -> Exception {
    match register {
        SegmentRegister::Ss => Exception::STACK,
        _ => Exception::GENERAL_PROTECTION,
    }
}

/// True if the descriptor type of `segment` allows the access.
fn type_allows(segment: &Segment, access: AccessKind) -> bool {
    let attributes = segment.attributes;
    let kind = attributes.kind();
    if attributes.unusable() || !attributes.present() || !attributes.code_or_data() {
        return false;
    }
    match (access, kind & kind::CODE != 0) {
        (AccessKind::Write, true) => false,
        (AccessKind::Write, false) => kind & kind::READ_WRITE != 0,
        (_, true) => kind & kind::READ_WRITE != 0,
        (_, false) => true,
    }
}

/// True if all of `size` bytes at `offset` lie within the segment.
fn within_limit(segment: &Segment, offset: u64, size: u64) -> bool {
    let attributes = segment.attributes;
    let last = offset.saturating_add(size.saturating_sub(1));
    let limit = u64::from(segment.limit);
    if attributes.kind() & (kind::CODE | kind::EXPAND_DOWN) == kind::EXPAND_DOWN {
        let top = if attributes.default_big() { 0xFFFF_FFFF } else { 0xFFFF };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Linear address of the memory operand, without any check.
    pub fn unchecked_linear(&self) -> Step<u64> {
        let operand = self.effective_address()?;
        let has_base = !self.mode.is_64_bit()
            || matches!(operand.segment, SegmentRegister::Fs | SegmentRegister::Gs);
        let base = if has_base { self.cpu.segment(operand.segment).base } else { 0 };
        let linear = base.wrapping_add(operand.offset);
        Ok(if self.mode.is_64_bit() { linear } else { linear & 0xFFFF_FFFF })
    }

    /// Linear address of `size` bytes at `offset` in `register`, checked for `access`.
    pub fn linear(
        &self,
        register: SegmentRegister,
        offset: u64,
        size: u64,
        access: AccessKind,
    ) -> Step<u64> {
        if self.mode.is_64_bit() {
            return self.linear_64_bit(register, offset, size);
        }
        let segment = self.cpu.segment(register);
        let type_ok = !self.mode.descriptors || type_allows(&segment, access);
        // The type field means nothing outside protected mode, so neither does expand-down.
        let limit_ok = if self.mode.descriptors {
            within_limit(&segment, offset, size)
        } else {
            offset.saturating_add(size.saturating_sub(1)) <= u64::from(segment.limit)
        };
        if !type_ok || !limit_ok {
            return Err(violation(register).into());
        }
        Ok(segment.base.wrapping_add(offset) & 0xFFFF_FFFF)
    }

    /// In 64-bit mode only FS and GS have a base, and nothing has a limit.
    fn linear_64_bit(&self, register: SegmentRegister, offset: u64, size: u64) -> Step<u64> {
        let base = match register {
            SegmentRegister::Fs | SegmentRegister::Gs => self.cpu.segment(register).base,
            _ => 0,
        };
        let first = GuestVirtAddr::new(base.wrapping_add(offset));
        let last = first.wrapping_add(size.saturating_sub(1));
        if first.is_canonical() && last.is_canonical() {
            Ok(first.as_u64())
        } else {
            Err(violation(register).into())
        }
    }

    /// Checks the base address of a descriptor table or a system segment; `fault` is raised by
    /// one that is not canonical. Outside long mode they have 32 bits, and all are.
    pub fn check_system_base(&self, base: u64, fault: Exception) -> Step<()> {
        if GuestVirtAddr::new(base).is_canonical() { Ok(()) } else { Err(fault.into()) }
    }

    /// Checks a near branch target.
    pub fn check_target(&self, target: u64) -> Step<()> {
        let valid = if self.mode.is_64_bit() {
            GuestVirtAddr::new(target).is_canonical()
        } else {
            target <= u64::from(self.cs.limit)
        };
        if valid { Ok(()) } else { Err(Exception::GENERAL_PROTECTION.into()) }
    }
}
