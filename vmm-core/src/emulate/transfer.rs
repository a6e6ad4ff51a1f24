// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves: MOV, MOVZX, MOVSX, MOVSXD, MOVBE, MOVNTI.

use iced_x86::{OpKind, Register};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::operand::Place;
use super::outcome::{Step, Stop};
use super::register::segment_from_decoder;
use crate::access::AccessWidth;
use crate::state::SegmentRegister;

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// MOV between registers, memory, immediates and segment registers; MOVNTI; MOVZX.
    pub fn move_plain(&mut self) -> Step<()> {
        if let Some(segment) = self.segment_operand(0) {
            return self.move_to_segment(segment);
        }
        let value = match self.segment_operand(1) {
            Some(segment) => u64::from(self.cpu.segment(segment).selector),
            None => self.read_operand(1)?,
        };
        self.write_operand(0, value)
    }

    /// The segment register that is operand number `operand`, if it is one.
    fn segment_operand(&self, operand: u32) -> Option<SegmentRegister> {
        if self.instruction.op_kind(operand) != OpKind::Register {
            return None;
        }
        let register: Register = self.instruction.op_register(operand);
        segment_from_decoder(register)
    }

    /// Without descriptors the base follows from the selector (AMD APM vol. 2, 4.1). Loads
    /// through descriptors, and of SS with its interrupt shadow, are not emulated.
    fn move_to_segment(&mut self, register: SegmentRegister) -> Step<()> {
        if self.mode.descriptors || register == SegmentRegister::Ss {
            return Err(Stop::Unsupported);
        }
        let selector = self.read_operand(1)? as u16;
        let mut segment = self.cpu.segment(register);
        segment.selector = selector;
        segment.base = u64::from(selector) << 4;
        self.cpu.set_segment(register, segment);
        Ok(())
    }

    /// MOVSX and MOVSXD.
    pub fn move_sign_extended(&mut self) -> Step<()> {
        let size = match self.place(1)? {
            Place::Register(part) => part.size,
            Place::Memory(size) => size,
        };
        let value = self.read_operand(1)?;
        self.write_operand(0, size.sign_extend(value))
    }

    /// MOVBE: reverses the bytes.
    pub fn move_big_endian(&mut self) -> Step<()> {
        let size = self.place(0)?.size();
        let value = self.read_operand(1)?;
        self.write_operand(0, reverse_bytes(value, size))
    }
}

fn reverse_bytes(value: u64, size: AccessWidth) -> u64 {
    value.swap_bytes() >> (64 - size.bits())
}
