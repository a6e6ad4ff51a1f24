// SPDX-License-Identifier: MIT OR Apache-2.0
//! Far transfers: JMP, CALL, RET, INT and IRET (Intel SDM vol. 2). Without a change of the
//! privilege level, and without call gates. Those to another task are checked and handed back as
//! the exit that hardware makes of them.

use iced_x86::{Code, Mnemonic, OpKind};

use super::Flow;
use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::descriptor::{Descriptor, NOT_PRESENT, Selector};
use super::event::Vectoring;
use super::flags::FlagUpdate;
use super::outcome::{Step, Stop};
use super::segment::system;
use super::segment_load::CheckedSegment;
use crate::access::AccessWidth;
use crate::address::GuestVirtAddr;
use crate::exit::{Exit, TaskSwitch, TaskSwitchSource};
use crate::state::rflags::{NT, OF, RF, VM};
use crate::state::{Exception, SegmentRegister, Vector};

/// How code is reached, which decides about the privilege check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    Jump,
    Call,
    Return,
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// The instructions of this file; `None` if this is none of them.
    pub fn far_transfer(&mut self, mnemonic: Mnemonic) -> Option<Step<Flow>> {
        let is_far = match self.instruction.op_kind(0) {
            OpKind::FarBranch16 | OpKind::FarBranch32 => true,
            OpKind::Memory => self.is_far_pointer(),
            _ => false,
        };
        Some(match mnemonic {
            Mnemonic::Jmp if is_far => self.far_jump(),
            Mnemonic::Call if is_far => self.far_call(),
            Mnemonic::Retf => self.far_return(),
            Mnemonic::Iret => self.interrupt_return(AccessWidth::Word),
            Mnemonic::Iretd => self.interrupt_return(AccessWidth::Dword),
            Mnemonic::Iretq => Err(Stop::Unsupported),
            Mnemonic::Int => self.software_interrupt(self.instruction.immediate8()),
            Mnemonic::Int3 => self.software_interrupt(3),
            Mnemonic::Int1 => self.vector(Vectoring::trap(Vector(1)), self.next_rip()),
            Mnemonic::Into if self.flag(OF) => self.software_interrupt(4),
            Mnemonic::Into => Ok(Flow::Next),
            _ => return None,
        })
    }

    fn is_far_pointer(&self) -> bool {
        use iced_x86::MemorySize::{SegPtr16, SegPtr32, SegPtr64};
        matches!(self.instruction.memory_size(), SegPtr16 | SegPtr32 | SegPtr64)
    }

    /// Selector, offset and operand size of a far JMP or CALL.
    fn far_target(&mut self) -> Step<(Selector, u64, AccessWidth)> {
        let instruction = &self.instruction;
        let (selector, offset, size) = match instruction.op_kind(0) {
            OpKind::FarBranch16 => {
                let offset = instruction.far_branch16().into();
                (instruction.far_branch_selector(), offset, AccessWidth::Word)
            }
            OpKind::FarBranch32 => {
                let offset = instruction.far_branch32().into();
                (instruction.far_branch_selector(), offset, AccessWidth::Dword)
            }
            _ => self.read_far_pointer()?,
        };
        Ok((Selector(selector), offset, size))
    }

    fn far_jump(&mut self) -> Step<Flow> {
        let (selector, offset, _) = self.far_target()?;
        let code = self.code_segment(selector, offset, Transfer::Jump)?;
        self.commit_segment(code)?;
        Ok(Flow::Jump(offset))
    }

    fn far_call(&mut self) -> Step<Flow> {
        let (selector, offset, size) = self.far_target()?;
        let code = self.code_segment(selector, offset, Transfer::Call)?;
        let room = self.room_on_stack::<2>(2, size)?;
        // First, for another CPU may be in the way.
        self.commit_segment(code)?;
        self.push_into(&room, &[self.cs.selector.into(), self.next_rip()])?;
        Ok(Flow::Jump(offset))
    }

    fn far_return(&mut self) -> Step<Flow> {
        let size = match self.instruction.code() {
            Code::Retfw | Code::Retfw_imm16 => AccessWidth::Word,
            Code::Retfd | Code::Retfd_imm16 => AccessWidth::Dword,
            Code::Retfq | Code::Retfq_imm16 => AccessWidth::Qword,
            _ => return Err(Stop::Unsupported),
        };
        let offset = self.peek(0, size)?;
        let selector = Selector(self.peek(size.length(), size)? as u16);
        let code = self.code_segment(selector, offset, Transfer::Return)?;
        let arguments = self.instruction.try_immediate(0).unwrap_or(0) & 0xFFFF;
        self.commit_segment(code)?;
        self.drop_from_stack(2 * size.length() + arguments);
        Ok(Flow::Jump(offset))
    }

    /// IRET to the same privilege level.
    fn interrupt_return(&mut self, size: AccessWidth) -> Step<Flow> {
        self.require_virtual_8086_privilege()?;
        if self.mode.descriptors && self.flag(NT) {
            return Err(self.task_return()?);
        }
        let offset = self.peek(0, size)?;
        let selector = Selector(self.peek(size.length(), size)? as u16);
        let flags = self.peek(2 * size.length(), size)?;
        let to_virtual_8086 = size == AccessWidth::Dword && flags & VM != 0;
        if self.mode.descriptors && (to_virtual_8086 || self.mode.is_64_bit()) {
            return Err(Stop::Unsupported);
        }
        let code = self.code_segment(selector, offset, Transfer::Return)?;
        self.commit_segment(code)?;
        self.drop_from_stack(3 * size.length());
        self.load_flags(flags, size);
        self.cpu.end_nmi_blocking();
        Ok(Flow::Jump(offset))
    }

    /// IRET to the task that the current one was called by; in long mode a fault.
    fn task_return(&mut self) -> Step<Stop> {
        if self.mode.long {
            return Ok(Exception::GENERAL_PROTECTION.into());
        }
        let task = self.cpu.segment(SegmentRegister::Tr).base;
        let link = self.read_system(task, 2)? as u16;
        Ok(task_switch(Selector(link), TaskSwitchSource::Return, None))
    }

    /// INT n, INT3 and INTO.
    fn software_interrupt(&mut self, vector: u8) -> Step<Flow> {
        // INT3 and INTO need no IOPL in virtual-8086 mode.
        if self.instruction.mnemonic() == Mnemonic::Int {
            self.require_virtual_8086_privilege()?;
        }
        self.vector(Vectoring::software(Vector(vector)), self.next_rip())
    }

    fn vector(&mut self, vectoring: Vectoring, return_to: u64) -> Step<Flow> {
        let target = self.vector_to(vectoring, return_to)?;
        self.apply(FlagUpdate::new(RF, 0));
        Ok(Flow::Jump(target))
    }

    /// Checks a code segment and the offset of the first instruction in it.
    pub fn code_segment(
        &mut self,
        selector: Selector,
        offset: u64,
        transfer: Transfer,
    ) -> Step<CheckedSegment> {
        let checked = if self.mode.descriptors {
            self.code_segment_by_descriptor(selector, transfer)?
        } else {
            self.real_mode_segment(SegmentRegister::Cs, selector.0)
        };
        let within = if self.mode.long && checked.segment.attributes.long() {
            GuestVirtAddr::new(offset).is_canonical()
        } else {
            offset <= u64::from(checked.segment.limit)
        };
        if within { Ok(checked) } else { Err(Exception::GENERAL_PROTECTION.into()) }
    }

    fn code_segment_by_descriptor(
        &mut self,
        selector: Selector,
        transfer: Transfer,
    ) -> Step<CheckedSegment> {
        if selector.is_null() {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        let descriptor = self.descriptor(selector)?;
        let attributes = descriptor.attributes();
        let source = match transfer {
            Transfer::Jump => Some(TaskSwitchSource::Jump),
            Transfer::Call => Some(TaskSwitchSource::Call),
            Transfer::Return => None,
        };
        if let (Some(source), false) = (source, attributes.code_or_data()) {
            return Err(self.indirect_transfer(selector, &descriptor, source));
        }
        let level = selector.level();
        let privilege = match (transfer, descriptor.is_conforming()) {
            (Transfer::Return, true) => attributes.dpl() <= level,
            (Transfer::Return, false) => attributes.dpl() == level,
            (_, true) => attributes.dpl() <= self.cpl,
            (_, false) => level <= self.cpl && attributes.dpl() == self.cpl,
        };
        let ambiguous = self.mode.long && attributes.long() && attributes.default_big();
        let climbs = transfer == Transfer::Return && level < self.cpl;
        if !descriptor.is_code() || !privilege || ambiguous || climbs {
            return Err(selector.general_protection().into());
        }
        if transfer == Transfer::Return && level > self.cpl {
            return Err(Stop::Unsupported);
        }
        if !attributes.present() {
            return Err(selector.fault(NOT_PRESENT).into());
        }
        self.mark_accessed(SegmentRegister::Cs, selector.with_level(self.cpl), &descriptor)
    }

    /// JMP or CALL to a TSS, or through a task gate. Which TSS fits is checked by the switch
    /// (Intel SDM vol. 2, JMP, TASK-GATE and TASK-STATE-SEGMENT).
    fn indirect_transfer(
        &self,
        selector: Selector,
        descriptor: &Descriptor,
        source: TaskSwitchSource,
    ) -> Stop {
        let attributes = descriptor.attributes();
        let is_long = self.mode.long;
        let target = match attributes.kind() {
            system::CALL_GATE => return Stop::Unsupported,
            system::CALL_GATE_16 if !is_long => return Stop::Unsupported,
            system::TSS_16 | system::TSS_32 if !is_long => selector,
            system::TASK_GATE if !is_long => descriptor.gate_selector(),
            _ => return selector.general_protection().into(),
        };
        if attributes.dpl() < self.cpl.max(selector.level()) {
            return selector.general_protection().into();
        }
        if !attributes.present() {
            return selector.fault(NOT_PRESENT).into();
        }
        task_switch(target, source, None)
    }
}

/// What hands a switch of tasks back. The error code is that of an exception with a task gate.
pub(super) fn task_switch(
    selector: Selector,
    source: TaskSwitchSource,
    error_code: Option<u32>,
) -> Stop {
    Stop::Intercepted(Exit::TaskSwitch(TaskSwitch { selector: selector.0, source, error_code }))
}
