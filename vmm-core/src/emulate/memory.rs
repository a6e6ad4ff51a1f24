// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operands in memory: translated as a whole before anything is read or written.

use super::bus::{Exchange, GuestBus};
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::FlagUpdate;
use super::outcome::{Step, Stop};
use crate::access::AccessWidth;
use crate::address::{GuestPhysAddr, GuestVirtAddr, PAGE_SIZE};
use crate::paging::walk::AccessKind;
use crate::state::{Exception, SegmentRegister, cr0, rflags};

/// How often a locked access competes with other CPUs before the guest is let run.
const MAX_ATTEMPTS: usize = 64;

/// Translated memory in one or two pages: an operand of up to 16 bytes, or a structure of which
/// [`part`](Span::part)s are read and written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    first: GuestPhysAddr,
    /// Bytes at `first`; the rest is at `second`.
    first_length: u64,
    second: GuestPhysAddr,
    length: u64,
}

/// A part of a span that is one bus access.
#[derive(Clone, Copy, Debug)]
struct Piece {
    address: GuestPhysAddr,
    size: AccessWidth,
    /// Offset in the operand, in bits.
    shift: u32,
}

impl Span {
    /// A span within one page.
    pub fn single(first: GuestPhysAddr, length: u64) -> Self {
        Self { first, first_length: length, second: first, length }
    }

    /// A span whose first `first_length` bytes are at `first`, the others at `second`.
    pub fn crossing(
        first: GuestPhysAddr,
        first_length: u64,
        second: GuestPhysAddr,
        length: u64,
    ) -> Self {
        Self { first, first_length, second, length }
    }

    /// The `length` bytes at `offset` in the span.
    pub fn part(&self, offset: u64, length: u64) -> Self {
        let after = |start: GuestPhysAddr, bytes| start.checked_add(bytes).unwrap_or(start);
        match self.first_length.checked_sub(offset) {
            Some(left) if left >= length => Self::single(after(self.first, offset), length),
            Some(left) if left > 0 => {
                Self::crossing(after(self.first, offset), left, self.second, length)
            }
            _ => {
                let skipped = offset.saturating_sub(self.first_length);
                Self::single(after(self.second, skipped), length)
            }
        }
    }

    /// The guest-physical page the span begins in.
    pub fn first_page(&self) -> GuestPhysAddr {
        self.first.align_down(PAGE_SIZE)
    }

    fn crosses_pages(&self) -> bool {
        self.first_length < self.length
    }

    /// The bus access at byte `at` of the operand. Within a page it is as wide as possible;
    /// an operand across pages is cut into aligned accesses.
    fn piece(&self, at: u64) -> Option<Piece> {
        let (page, offset, left) = if at < self.first_length {
            (self.first, at, self.first_length - at)
        } else {
            (self.second, at - self.first_length, self.length.checked_sub(at)?)
        };
        let address = page.checked_add(offset)?;
        let mut bytes = 8;
        while bytes > left || (self.crosses_pages() && !address.is_aligned(bytes)) {
            bytes /= 2;
        }
        let size = AccessWidth::from_bytes(bytes as usize)?;
        Some(Piece { address, size, shift: (at * 8) as u32 })
    }

    /// The whole operand as a single bus access, if it is one.
    fn whole(&self) -> Option<(GuestPhysAddr, AccessWidth)> {
        if self.crosses_pages() {
            return None;
        }
        Some((self.first, AccessWidth::from_bytes(self.length as usize)?))
    }
}

/// What a read-modify-write instruction makes of its operand.
pub(super) struct Change {
    pub value: u64,
    pub flags: FlagUpdate,
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Checks and translates `length` bytes at `offset` in `segment`.
    pub fn span(
        &mut self,
        segment: SegmentRegister,
        offset: u64,
        length: u64,
        access: AccessKind,
    ) -> Step<Span> {
        let linear = self.linear(segment, offset, length, access)?;
        let first = self.translate(linear, access)?;
        let in_page = PAGE_SIZE - linear % PAGE_SIZE;
        let mut span = Span::single(first, length);
        if in_page < length {
            span.first_length = in_page;
            span.second = self.translate(self.linear_after(linear, in_page), access)?;
        }
        self.check_alignment(linear, length)?;
        Ok(span)
    }

    /// Linear addresses wrap at 4 GiB outside 64-bit mode.
    fn linear_after(&self, linear: u64, bytes: u64) -> u64 {
        let next = GuestVirtAddr::new(linear).wrapping_add(bytes).as_u64();
        if self.mode.is_64_bit() { next } else { next & 0xFFFF_FFFF }
    }

    /// #AC for misaligned accesses at CPL 3, if enabled (AMD APM vol. 2, 8.2.18).
    pub fn check_alignment(&self, linear: u64, length: u64) -> Step<()> {
        let enabled =
            self.cpl == 3 && self.flag(rflags::AC) && self.space.control.cr0 & cr0::AM != 0;
        // Far pointers are as long as their offset and a selector.
        let alignment = 1 << length.max(1).ilog2();
        if enabled && linear & (alignment - 1) != 0 {
            return Err(Exception::ALIGNMENT_CHECK.into());
        }
        Ok(())
    }

    /// Reads an operand of up to 8 bytes.
    pub fn read_span(&mut self, span: &Span) -> Step<u64> {
        Ok(self.read_wide(span)? as u64)
    }

    /// Reads an operand of up to 16 bytes.
    pub fn read_wide(&mut self, span: &Span) -> Step<u128> {
        let (mut value, mut at) = (0, 0);
        while at < span.length {
            let Some(Piece { address, size, shift }) = span.piece(at) else { break };
            let part = self
                .bus
                .read(address, size)
                .map_err(|_| Stop::Bus { address, access: AccessKind::Read })?;
            value |= u128::from(part & size.mask()) << shift;
            at += size.length();
        }
        Ok(value)
    }

    /// Writes an operand of up to 8 bytes.
    pub fn write_span(&mut self, span: &Span, value: u64) -> Step<()> {
        self.write_wide(span, u128::from(value))
    }

    /// Writes an operand of up to 16 bytes.
    pub fn write_wide(&mut self, span: &Span, value: u128) -> Step<()> {
        let mut at = 0;
        while at < span.length {
            let Some(Piece { address, size, shift }) = span.piece(at) else { break };
            self.bus
                .write(address, size, (value >> shift) as u64 & size.mask())
                .map_err(|_| Stop::Bus { address, access: AccessKind::Write })?;
            at += size.length();
        }
        Ok(())
    }

    /// Reads, computes and writes back; atomically if `locked` and the bus can. Returns the
    /// old value and the change made. An operand across two pages is never atomic.
    pub fn update_span(
        &mut self,
        span: &Span,
        locked: bool,
        compute: impl Fn(u64) -> Change,
    ) -> Step<(u64, Change)> {
        for _ in 0..MAX_ATTEMPTS {
            let old = self.read_span(span)?;
            let change = compute(old);
            let exchange = match span.whole() {
                Some((address, size)) if locked => self
                    .bus
                    .compare_exchange(address, size, old, change.value & size.mask())
                    .map_err(|_| Stop::Bus { address, access: AccessKind::Write })?,
                _ => Exchange::NotAtomic,
            };
            match exchange {
                Exchange::Done => return Ok((old, change)),
                Exchange::Different => {}
                Exchange::NotAtomic => {
                    self.write_span(span, change.value)?;
                    return Ok((old, change));
                }
            }
        }
        Err(Stop::Contended)
    }

    /// Atomic exchange of 16 aligned bytes within a page; writes plainly if the bus cannot.
    pub fn exchange_wide(
        &mut self,
        span: &Span,
        locked: bool,
        expected: u128,
        new: u128,
    ) -> Step<bool> {
        let address = span.first;
        let exchange = if locked {
            self.bus
                .compare_exchange_u128(address, expected, new)
                .map_err(|_| Stop::Bus { address, access: AccessKind::Write })?
        } else {
            Exchange::NotAtomic
        };
        match exchange {
            Exchange::Done => Ok(true),
            Exchange::Different => Ok(false),
            Exchange::NotAtomic => self.write_wide(span, new).map(|()| true),
        }
    }
}
