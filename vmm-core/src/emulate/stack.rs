// SPDX-License-Identifier: MIT OR Apache-2.0
//! PUSH, POP, near CALL and near JMP.

use iced_x86::OpKind;

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::memory::Span;
use super::outcome::{Step, Stop};
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::{Gpr, SegmentRegister};

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// The stack pointer: RSP, ESP or SP by mode and SS.B.
    fn stack_pointer(&self) -> GprPart {
        let size = if self.mode.is_64_bit() {
            AccessWidth::Qword
        } else if self.cpu.segment(SegmentRegister::Ss).attributes.default_big() {
            AccessWidth::Dword
        } else {
            AccessWidth::Word
        };
        GprPart::new(Gpr::Rsp, size)
    }

    /// Operand size of PUSH, POP and near CALL: that of the operand.
    fn stack_operand_size(&self) -> Step<AccessWidth> {
        match self.instruction.op_kind(0) {
            OpKind::Immediate8to16 | OpKind::Immediate16 | OpKind::NearBranch16 => {
                Ok(AccessWidth::Word)
            }
            OpKind::Immediate8to32 | OpKind::Immediate32 | OpKind::NearBranch32 => {
                Ok(AccessWidth::Dword)
            }
            OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::NearBranch64 => {
                Ok(AccessWidth::Qword)
            }
            _ => Ok(self.place(0)?.size()),
        }
    }

    /// Checks the slot below the stack pointer; returns it with the new stack pointer.
    fn stack_slot(&mut self, size: AccessWidth) -> Step<(Span, u64)> {
        let pointer = self.stack_pointer();
        let top = self.register(pointer).wrapping_sub(size.length()) & pointer.size.mask();
        let span = self.span(SegmentRegister::Ss, top, size.length(), AccessKind::Write)?;
        Ok((span, top))
    }

    fn push_value(&mut self, value: u64, size: AccessWidth) -> Step<()> {
        let (span, top) = self.stack_slot(size)?;
        self.write_span(&span, value & size.mask())?;
        self.set_register(self.stack_pointer(), top);
        Ok(())
    }

    /// PUSH.
    pub fn push(&mut self) -> Step<()> {
        let size = self.stack_operand_size()?;
        let value = self.read_operand(0)?;
        self.push_value(value, size)
    }

    /// POP. A memory operand based on RSP is addressed with its new value.
    pub fn pop(&mut self) -> Step<()> {
        let size = self.place(0)?.size();
        let pointer = self.stack_pointer();
        let top = self.register(pointer);
        let span = self.span(SegmentRegister::Ss, top, size.length(), AccessKind::Read)?;
        let value = self.read_span(&span)?;
        let whole = self.cpu.gpr(Gpr::Rsp);
        self.set_register(pointer, top.wrapping_add(size.length()));
        let written = self.write_operand(0, value);
        if written.is_err() {
            self.cpu.set_gpr(Gpr::Rsp, whole);
        }
        written
    }

    /// Near CALL; returns the target.
    pub fn call(&mut self) -> Step<u64> {
        let size = self.stack_operand_size()?;
        let target = self.branch_target()?;
        let next = self.next_rip();
        self.push_value(next, size)?;
        Ok(target)
    }

    /// Target of a near CALL or JMP, checked.
    pub fn branch_target(&mut self) -> Step<u64> {
        let target = match self.instruction.op_kind(0) {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                self.instruction.near_branch_target()
            }
            OpKind::Register | OpKind::Memory => self.read_operand(0)?,
            _ => return Err(Stop::Unsupported),
        };
        self.check_target(target)?;
        Ok(target)
    }
}
