// SPDX-License-Identifier: MIT OR Apache-2.0
//! General-purpose registers as the decoder names them.

use iced_x86::Register;

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use crate::access::AccessWidth;
use crate::state::{Gpr, SegmentRegister};

/// A general-purpose register or part of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct GprPart {
    pub register: Gpr,
    pub size: AccessWidth,
    /// AH, CH, DH or BH.
    pub high_byte: bool,
}

impl GprPart {
    pub const fn new(register: Gpr, size: AccessWidth) -> Self {
        Self { register, size, high_byte: false }
    }

    /// The general-purpose register the decoder calls `register`, or `None` if it is not one.
    pub fn from_decoder(register: Register) -> Option<Self> {
        let number = register as u32;
        let byte_low = Register::AL as u32;
        let (first, size) = match register {
            r if r >= Register::AL && r <= Register::R15L => {
                return Some(Self::byte(number - byte_low));
            }
            r if r >= Register::AX && r <= Register::R15W => (Register::AX, AccessWidth::Word),
            r if r >= Register::EAX && r <= Register::R15D => (Register::EAX, AccessWidth::Dword),
            r if r >= Register::RAX && r <= Register::R15 => (Register::RAX, AccessWidth::Qword),
            _ => return None,
        };
        Some(Self::new(Gpr::from_encoding((number - first as u32) as u8), size))
    }

    /// The part of `whole`, the value of the register, zero-extended.
    pub fn extracted(self, whole: u64) -> u64 {
        (whole >> if self.high_byte { 8 } else { 0 }) & self.size.mask()
    }

    /// What the register holds, which held `whole`, when `value` was written to the part.
    pub fn merged(self, whole: u64, value: u64) -> u64 {
        let value = value & self.size.mask();
        match self.size {
            AccessWidth::Dword | AccessWidth::Qword => value,
            AccessWidth::Byte | AccessWidth::Word => {
                let shift = if self.high_byte { 8 } else { 0 };
                (whole & !(self.size.mask() << shift)) | (value << shift)
            }
        }
    }

    /// The decoder orders byte registers AL–BL, AH–BH, SPL–DIL, R8L–R15L.
    fn byte(index: u32) -> Self {
        let (encoding, high_byte) = match index {
            0..4 => (index, false),
            4..8 => (index - 4, true),
            _ => (index - 4, false),
        };
        let register = Gpr::from_encoding(encoding as u8);
        Self { register, size: AccessWidth::Byte, high_byte }
    }
}

/// The segment register the decoder calls `register`.
pub(super) fn segment_from_decoder(register: Register) -> Option<SegmentRegister> {
    Some(match register {
        Register::ES => SegmentRegister::Es,
        Register::CS => SegmentRegister::Cs,
        Register::SS => SegmentRegister::Ss,
        Register::DS => SegmentRegister::Ds,
        Register::FS => SegmentRegister::Fs,
        Register::GS => SegmentRegister::Gs,
        _ => return None,
    })
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Reads a register part, zero-extended.
    pub fn register(&self, part: GprPart) -> u64 {
        part.extracted(self.cpu.gpr(part.register))
    }

    /// Writes a register part. A 32-bit write clears the upper half, narrower ones keep the
    /// rest (AMD APM vol. 1, 3.1.2).
    pub fn set_register(&mut self, part: GprPart, value: u64) {
        let merged = part.merged(self.cpu.gpr(part.register), value);
        self.cpu.set_gpr(part.register, merged);
    }
}
