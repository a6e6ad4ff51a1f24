// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a TSS holds what (Intel SDM vol. 3, 7.2.1 and 7.6).

use crate::access::AccessWidth;
use crate::emulate::bus::GuestBus;
use crate::emulate::context::Context;
use crate::emulate::cpu::EmulatorCpu;
use crate::emulate::memory::Span;
use crate::emulate::outcome::Step;
use crate::emulate::segment::system;
use crate::state::{Gpr, SegmentRegister, rflags};

/// The flags that a TSS holds and the CPU has; 16-bit formats hold the lower half.
const FLAGS: u64 = rflags::CF
    | rflags::PF
    | rflags::AF
    | rflags::ZF
    | rflags::SF
    | rflags::TF
    | rflags::IF
    | rflags::DF
    | rflags::OF
    | rflags::IOPL
    | rflags::NT
    | rflags::RF
    | rflags::VM
    | rflags::AC
    | VIF_AND_VIP
    | rflags::ID;
const VIF_AND_VIP: u64 = 3 << 19;

/// General-purpose registers of a TSS, in its order.
const GPRS: [Gpr; 8] =
    [Gpr::Rax, Gpr::Rcx, Gpr::Rdx, Gpr::Rbx, Gpr::Rsp, Gpr::Rbp, Gpr::Rsi, Gpr::Rdi];

/// Segment registers of a TSS, in its order. A 16-bit TSS has the first four.
pub(super) const SEGMENTS: [SegmentRegister; 6] = [
    SegmentRegister::Es,
    SegmentRegister::Cs,
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
];

/// Offsets in a TSS.
#[derive(Debug)]
pub(super) struct Layout {
    /// Width of the registers.
    pub size: AccessWidth,
    /// Bytes that the CPU itself uses.
    pub length: u64,
    pub cr3: Option<u64>,
    /// From here to the selector of the LDT a task is saved.
    pub ip: u64,
    flags: u64,
    gprs: u64,
    segments: u64,
    segment_count: usize,
    pub ldt: u64,
    trap: Option<u64>,
}

const TSS_32: Layout = Layout {
    size: AccessWidth::Dword,
    length: 104,
    cr3: Some(0x1C),
    ip: 0x20,
    flags: 0x24,
    gprs: 0x28,
    segments: 0x48,
    segment_count: 6,
    ldt: 0x60,
    trap: Some(0x64),
};

const TSS_16: Layout = Layout {
    size: AccessWidth::Word,
    length: 44,
    cr3: None,
    ip: 0x0E,
    flags: 0x10,
    gprs: 0x12,
    segments: 0x22,
    segment_count: 4,
    ldt: 0x2A,
    trap: None,
};

impl Layout {
    /// The layout of a TSS whose descriptor has this type.
    pub const fn of(kind: u8) -> &'static Self {
        if kind & system::IS_32_BIT == 0 { &TSS_16 } else { &TSS_32 }
    }

    /// Bytes from [`Self::ip`] on that leaving a task writes.
    pub const fn saved_length(&self) -> u64 {
        self.ldt - self.ip
    }
}

/// What a task begins with. Registers that the format lacks are zero.
pub(super) struct TaskState {
    pub ip: u64,
    pub flags: u64,
    gprs: [u64; 8],
    /// Selectors, by [`SEGMENTS`].
    pub segments: [u16; 6],
    pub ldt: u16,
    /// The T flag: the task begins with a debug exception.
    pub traps: bool,
}

impl TaskState {
    /// The privilege level at which the task begins.
    pub const fn cpl(&self) -> u8 {
        if self.flags & rflags::VM != 0 { 3 } else { (self.segments[1] & 3) as u8 }
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Saves the task. `span` is the saved part of its TSS.
    pub(super) fn save_task(
        &mut self,
        layout: &Layout,
        span: &Span,
        ip: u64,
        flags: u64,
    ) -> Step<()> {
        let width = layout.size.length();
        let save = |context: &mut Self, offset: u64, bytes: u64, value: u64| {
            context.write_span(&span.part(offset - layout.ip, bytes), value)
        };
        save(self, layout.ip, width, ip)?;
        save(self, layout.flags, width, flags)?;
        for (register, offset) in GPRS.into_iter().zip((layout.gprs..).step_by(width as usize)) {
            let value = self.cpu.gpr(register);
            save(self, offset, width, value)?;
        }
        for (register, offset) in segment_offsets(layout) {
            let selector = self.cpu.segment(register).selector;
            save(self, offset, 2, selector.into())?;
        }
        Ok(())
    }

    /// Reads what the task of the TSS `image` begins with.
    pub(super) fn read_task(&mut self, layout: &Layout, image: &Span) -> Step<TaskState> {
        let width = layout.size.length();
        let mut read = |offset, bytes| self.read_span(&image.part(offset, bytes));
        let ip = read(layout.ip, width)?;
        let flags = read(layout.flags, width)? & FLAGS | rflags::FIXED;
        let mut gprs = [0; 8];
        for (value, offset) in gprs.iter_mut().zip((layout.gprs..).step_by(width as usize)) {
            *value = read(offset, width)?;
        }
        let mut segments = [0; 6];
        for (selector, (_, offset)) in segments.iter_mut().zip(segment_offsets(layout)) {
            *selector = read(offset, 2)? as u16;
        }
        let ldt = read(layout.ldt, 2)? as u16;
        let traps = match layout.trap {
            Some(offset) => read(offset, 2)? & 1 != 0,
            None => false,
        };
        Ok(TaskState { ip, flags, gprs, segments, ldt, traps })
    }

    /// Puts the general-purpose registers of `state` into the CPU.
    pub(super) fn load_task_gprs(&mut self, state: &TaskState) {
        for (register, value) in GPRS.into_iter().zip(state.gprs) {
            self.cpu.set_gpr(register, value);
        }
    }
}

/// The segment registers in a TSS and where they are.
fn segment_offsets(layout: &Layout) -> impl Iterator<Item = (SegmentRegister, u64)> {
    let offsets = (layout.segments..).step_by(layout.size.bytes());
    SEGMENTS.into_iter().zip(offsets).take(layout.segment_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_follow_from_the_type() {
        for (kind, length, saved) in [(1, 44, 28), (3, 44, 28), (9, 104, 64), (11, 104, 64)] {
            let layout = Layout::of(kind);
            assert_eq!((layout.length, layout.saved_length()), (length, saved));
            let (_, last) = segment_offsets(layout).last().unwrap();
            assert_eq!(last + layout.size.length(), layout.ldt);
            let gprs = layout.gprs + 8 * layout.size.length();
            assert_eq!(gprs, layout.segments);
        }
    }
}
