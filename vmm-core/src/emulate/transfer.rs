// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves: MOV, MOVZX, MOVSX, MOVSXD, MOVBE, MOVNTI.

use iced_x86::{OpKind, Register};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::operand::Place;
use super::outcome::Step;
use super::register::segment_from_decoder;
use crate::access::AccessWidth;
use crate::state::{Exception, SegmentRegister};

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
    pub fn segment_operand(&self, operand: u32) -> Option<SegmentRegister> {
        if self.instruction.op_kind(operand) != OpKind::Register {
            return None;
        }
        let register: Register = self.instruction.op_register(operand);
        segment_from_decoder(register)
    }

    /// MOV to a segment register; CS is none of its targets.
    fn move_to_segment(&mut self, register: SegmentRegister) -> Step<()> {
        if register == SegmentRegister::Cs {
            return Err(Exception::INVALID_OPCODE.into());
        }
        let selector = self.read_operand(1)? as u16;
        self.load_segment(register, selector)?;
        self.begin_stack_shadow(register);
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
