// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instruction operands: registers, immediates and memory.

use iced_x86::{CodeSize as DecoderCodeSize, MemorySize, OpKind, Register};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::memory::{Change, Span};
use super::outcome::{Step, Stop};
use super::register::{GprPart, segment_from_decoder};
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::SegmentRegister;

/// A place a value is read from or written to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Register(GprPart),
    /// The memory operand of the instruction, of this size.
    Memory(AccessWidth),
}

impl Place {
    pub fn size(&self) -> AccessWidth {
        match self {
            Self::Register(part) => part.size,
            Self::Memory(size) => *size,
        }
    }
}

/// A place ready to be written: nothing can fault any more.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Register(GprPart),
    Memory(Span),
}

/// Segment, offset and address size of a memory operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct EffectiveAddress {
    pub segment: SegmentRegister,
    pub offset: u64,
    /// Mask of the address size.
    pub mask: u64,
}

/// Operand size of a memory operand with a plain integer in it.
fn integer_size(size: MemorySize) -> Option<AccessWidth> {
    Some(match size {
        MemorySize::UInt8 | MemorySize::Int8 => AccessWidth::Byte,
        MemorySize::UInt16 | MemorySize::Int16 | MemorySize::WordOffset => AccessWidth::Word,
        MemorySize::UInt32 | MemorySize::Int32 | MemorySize::DwordOffset => AccessWidth::Dword,
        MemorySize::UInt64 | MemorySize::Int64 | MemorySize::QwordOffset => AccessWidth::Qword,
        _ => return None,
    })
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// The register or memory operand number `operand`.
    pub fn place(&self, operand: u32) -> Step<Place> {
        match self.instruction.op_kind(operand) {
            OpKind::Register => {
                let register = self.instruction.op_register(operand);
                GprPart::from_decoder(register).map(Place::Register).ok_or(Stop::Unsupported)
            }
            OpKind::Memory => self.memory_size().map(Place::Memory),
            _ => Err(Stop::Unsupported),
        }
    }

    /// The general-purpose register that is operand number `operand`.
    pub fn register_operand(&self, operand: u32) -> Step<GprPart> {
        match self.place(operand)? {
            Place::Register(part) => Ok(part),
            Place::Memory(_) => Err(Stop::Unsupported),
        }
    }

    /// Size of the memory operand.
    pub fn memory_size(&self) -> Step<AccessWidth> {
        integer_size(self.instruction.memory_size()).ok_or(Stop::Unsupported)
    }

    /// Value of operand number `operand`, zero-extended; immediates are sign-extended.
    pub fn read_operand(&mut self, operand: u32) -> Step<u64> {
        if let Ok(immediate) = self.instruction.try_immediate(operand) {
            return Ok(immediate);
        }
        match self.place(operand)? {
            Place::Register(part) => Ok(self.register(part)),
            Place::Memory(size) => {
                let span = self.operand_span(size.length(), AccessKind::Read)?;
                self.read_span(&span)
            }
        }
    }

    /// Checks and translates operand number `operand` for writing.
    pub fn target(&mut self, operand: u32) -> Step<Target> {
        match self.place(operand)? {
            Place::Register(part) => Ok(Target::Register(part)),
            Place::Memory(size) => {
                self.operand_span(size.length(), AccessKind::Write).map(Target::Memory)
            }
        }
    }

    /// Writes a checked place.
    pub fn write_target(&mut self, target: &Target, value: u64) -> Step<()> {
        match target {
            Target::Register(part) => {
                self.set_register(*part, value);
                Ok(())
            }
            Target::Memory(span) => self.write_span(span, value),
        }
    }

    /// Writes operand number `operand`.
    pub fn write_operand(&mut self, operand: u32, value: u64) -> Step<()> {
        let target = self.target(operand)?;
        self.write_target(&target, value)
    }

    /// Replaces operand number `operand` by what `compute` makes of it, takes over the flags
    /// and returns the old value. Atomic if `locked`.
    pub fn modify_operand(
        &mut self,
        operand: u32,
        locked: bool,
        compute: impl Fn(u64) -> Change,
    ) -> Step<u64> {
        match self.target(operand)? {
            Target::Register(part) => {
                let old = self.register(part);
                let change = compute(old);
                self.set_register(part, change.value);
                self.apply(change.flags);
                Ok(old)
            }
            Target::Memory(span) => {
                let (old, change) = self.update_span(&span, locked, compute)?;
                self.apply(change.flags);
                Ok(old)
            }
        }
    }

    /// Checks and translates the memory operand, `length` bytes.
    pub fn operand_span(&mut self, length: u64, access: AccessKind) -> Step<Span> {
        let address = self.effective_address()?;
        self.span(address.segment, address.offset, length, access)
    }

    /// Address of the memory operand (AMD APM vol. 1, 2.2.3).
    pub fn effective_address(&self) -> Step<EffectiveAddress> {
        let instruction = &self.instruction;
        let segment =
            segment_from_decoder(instruction.memory_segment()).ok_or(Stop::Unsupported)?;
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let mut offset = instruction.memory_displacement64();
        // The displacement of a RIP-relative operand is already the address.
        if !matches!(base, Register::None | Register::RIP | Register::EIP) {
            offset = offset.wrapping_add(self.address_register(base)?);
        }
        if index != Register::None {
            let scale = u64::from(instruction.memory_index_scale());
            offset = offset.wrapping_add(self.address_register(index)?.wrapping_mul(scale));
        }
        let mask = self.address_mask();
        Ok(EffectiveAddress { segment, offset: offset & mask, mask })
    }

    fn address_register(&self, register: Register) -> Step<u64> {
        let part = GprPart::from_decoder(register).ok_or(Stop::Unsupported)?;
        Ok(self.register(part))
    }

    /// Mask of the address size of the memory operand: that of its registers, or without
    /// any, of its displacement.
    fn address_mask(&self) -> u64 {
        let instruction = &self.instruction;
        let registers = [instruction.memory_base(), instruction.memory_index()];
        for register in registers {
            match register {
                Register::RIP => return u64::MAX,
                Register::EIP => return 0xFFFF_FFFF,
                register => {
                    if let Some(part) = GprPart::from_decoder(register) {
                        return part.size.mask();
                    }
                }
            }
        }
        match (instruction.memory_displ_size(), instruction.code_size()) {
            (2, _) => 0xFFFF,
            (4, _) => 0xFFFF_FFFF,
            (8, _) | (_, DecoderCodeSize::Code64) => u64::MAX,
            (_, DecoderCodeSize::Code16) => 0xFFFF,
            _ => 0xFFFF_FFFF,
        }
    }

    /// True if the instruction has a LOCK prefix.
    pub fn is_locked(&self) -> bool {
        self.instruction.has_lock_prefix()
    }
}
