// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stack: PUSH, POP, near CALL and near JMP.

use iced_x86::{Code, OpKind};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::memory::Span;
use super::outcome::{Step, Stop};
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::{Gpr, SegmentRegister};

/// Operand size of PUSH and POP of a segment register.
fn segment_slot(code: Code) -> Step<AccessWidth> {
    Ok(match code {
        Code::Pushw_ES
        | Code::Pushw_CS
        | Code::Pushw_SS
        | Code::Pushw_DS
        | Code::Pushw_FS
        | Code::Pushw_GS
        | Code::Popw_ES
        | Code::Popw_SS
        | Code::Popw_DS
        | Code::Popw_FS
        | Code::Popw_GS => AccessWidth::Word,
        Code::Pushd_ES
        | Code::Pushd_CS
        | Code::Pushd_SS
        | Code::Pushd_DS
        | Code::Pushd_FS
        | Code::Pushd_GS
        | Code::Popd_ES
        | Code::Popd_SS
        | Code::Popd_DS
        | Code::Popd_FS
        | Code::Popd_GS => AccessWidth::Dword,
        Code::Pushq_FS | Code::Pushq_GS | Code::Popq_FS | Code::Popq_GS => AccessWidth::Qword,
        _ => return Err(Stop::Unsupported),
    })
}

/// Room on the stack that was checked.
pub(super) struct StackRoom<const MAX: usize> {
    slots: [Option<Span>; MAX],
    top: u64,
    size: AccessWidth,
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// The stack pointer: RSP, ESP or SP by mode and SS.B.
    pub fn stack_pointer(&self) -> GprPart {
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

    /// Reads from the stack segment.
    pub fn read_stack(&mut self, offset: u64, size: AccessWidth) -> Step<u64> {
        let span = self.span(SegmentRegister::Ss, offset, size.length(), AccessKind::Read)?;
        self.read_span(&span)
    }

    /// Reads `offset` bytes above the top of the stack.
    pub fn peek(&mut self, offset: u64, size: AccessWidth) -> Step<u64> {
        let pointer = self.stack_pointer();
        let at = self.register(pointer).wrapping_add(offset) & pointer.size.mask();
        self.read_stack(at, size)
    }

    /// Takes `bytes` off the stack.
    pub fn drop_from_stack(&mut self, bytes: u64) {
        let pointer = self.stack_pointer();
        let top = self.register(pointer).wrapping_add(bytes);
        self.set_register(pointer, top);
    }

    /// Checks room on the stack for `count` values, at most `MAX`.
    pub fn room_on_stack<const MAX: usize>(
        &mut self,
        count: usize,
        size: AccessWidth,
    ) -> Step<StackRoom<MAX>> {
        let pointer = self.stack_pointer();
        let mut top = self.register(pointer);
        let mut slots = [None; MAX];
        for slot in slots.iter_mut().take(count) {
            top = top.wrapping_sub(size.length()) & pointer.size.mask();
            let span = self.span(SegmentRegister::Ss, top, size.length(), AccessKind::Write)?;
            *slot = Some(span);
        }
        Ok(StackRoom { slots, top, size })
    }

    /// Pushes `values`, for which there is room, the first one first.
    pub fn push_into<const MAX: usize>(
        &mut self,
        room: &StackRoom<MAX>,
        values: &[u64],
    ) -> Step<()> {
        for (slot, value) in room.slots.iter().flatten().zip(values) {
            self.write_span(slot, value & room.size.mask())?;
        }
        self.set_register(self.stack_pointer(), room.top);
        Ok(())
    }

    /// Pushes `values`, at most `MAX`. All slots are checked before the first is written.
    pub fn push_all<const MAX: usize>(&mut self, values: &[u64], size: AccessWidth) -> Step<()> {
        let room = self.room_on_stack::<MAX>(values.len(), size)?;
        self.push_into(&room, values)
    }

    /// Pushes one value.
    pub fn push_value(&mut self, value: u64, size: AccessWidth) -> Step<()> {
        self.push_all::<1>(&[value], size)
    }

    /// PUSH.
    pub fn push(&mut self) -> Step<()> {
        if let Some(register) = self.segment_operand(0) {
            let size = segment_slot(self.instruction.code())?;
            return self.push_value(self.cpu.segment(register).selector.into(), size);
        }
        let size = self.stack_operand_size()?;
        let value = self.read_operand(0)?;
        self.push_value(value, size)
    }

    /// POP. A memory operand based on RSP is addressed with its new value.
    pub fn pop(&mut self) -> Step<()> {
        if let Some(register) = self.segment_operand(0) {
            let size = segment_slot(self.instruction.code())?;
            let selector = self.peek(0, size)? as u16;
            // Loading SS may change the size of the stack pointer.
            let pointer = self.stack_pointer();
            let top = self.register(pointer).wrapping_add(size.length());
            self.load_segment(register, selector)?;
            self.set_register(pointer, top);
            self.begin_stack_shadow(register);
            return Ok(());
        }
        let size = self.place(0)?.size();
        let value = self.peek(0, size)?;
        let whole = self.cpu.gpr(Gpr::Rsp);
        self.drop_from_stack(size.length());
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

    /// Target of a near branch, checked.
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
