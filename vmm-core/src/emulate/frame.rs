// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stack frames: ENTER, LEAVE, PUSHA, POPA.

use iced_x86::{Code, Mnemonic};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::outcome::{Step, Stop};
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::{Gpr, SegmentRegister};

/// What ENTER pushes at most: RBP and 31 frame pointers.
const MAX_ENTER: usize = 32;

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// The instructions of this file; `None` if this is none of them.
    pub fn frame(&mut self, mnemonic: Mnemonic) -> Option<Step<()>> {
        Some(match mnemonic {
            Mnemonic::Enter => self.enter_frame(),
            Mnemonic::Leave => self.leave_frame(),
            Mnemonic::Pusha => self.push_registers(AccessWidth::Word),
            Mnemonic::Pushad => self.push_registers(AccessWidth::Dword),
            Mnemonic::Popa => self.pop_registers(AccessWidth::Word),
            Mnemonic::Popad => self.pop_registers(AccessWidth::Dword),
            _ => return None,
        })
    }

    fn frame_size(&self) -> Step<AccessWidth> {
        Ok(match self.instruction.code() {
            Code::Enterw_imm16_imm8 | Code::Leavew => AccessWidth::Word,
            Code::Enterd_imm16_imm8 | Code::Leaved => AccessWidth::Dword,
            Code::Enterq_imm16_imm8 | Code::Leaveq => AccessWidth::Qword,
            _ => return Err(Stop::Unsupported),
        })
    }

    /// ENTER (Intel SDM vol. 2): pushes RBP, then the frame pointers of the enclosing
    /// procedures and the new one, and makes room for variables.
    fn enter_frame(&mut self) -> Step<()> {
        let size = self.frame_size()?;
        let room = u64::from(self.instruction.immediate16());
        let level = usize::from(self.instruction.immediate8_2nd() & 31);
        let pointer = self.stack_pointer();
        let base = GprPart::new(Gpr::Rbp, size);
        let old = self.register(GprPart::new(Gpr::Rbp, pointer.size));
        let frame = self.register(pointer).wrapping_sub(size.length());
        let mut values = [0; MAX_ENTER];
        values[0] = self.register(base);
        for (number, value) in (1_u64..).zip(values.iter_mut().take(level).skip(1)) {
            let at = old.wrapping_sub(number * size.length()) & pointer.size.mask();
            *value = self.read_stack(at, size)?;
        }
        values[level] = if level > 0 { frame } else { values[0] };
        // The place of the new stack pointer has to be writable, too.
        let pushed = (level as u64 + 1) * size.length();
        let top = self.register(pointer).wrapping_sub(pushed + room) & pointer.size.mask();
        self.span(SegmentRegister::Ss, top, size.length(), AccessKind::Write)?;
        self.push_all::<MAX_ENTER>(&values[..=level], size)?;
        self.set_register(base, frame);
        self.set_register(self.stack_pointer(), top);
        Ok(())
    }

    /// LEAVE.
    fn leave_frame(&mut self) -> Step<()> {
        let size = self.frame_size()?;
        let pointer = self.stack_pointer();
        let frame = self.register(GprPart::new(Gpr::Rbp, pointer.size));
        let value = self.read_stack(frame, size)?;
        self.set_register(pointer, frame.wrapping_add(size.length()));
        self.set_register(GprPart::new(Gpr::Rbp, size), value);
        Ok(())
    }

    /// PUSHA: the eight registers in encoding order, RSP as it was.
    fn push_registers(&mut self, size: AccessWidth) -> Step<()> {
        let mut values = [0; 8];
        for (value, register) in values.iter_mut().zip(Gpr::ALL) {
            *value = self.register(GprPart::new(register, size));
        }
        self.push_all::<8>(&values, size)
    }

    /// POPA: all but RSP.
    fn pop_registers(&mut self, size: AccessWidth) -> Step<()> {
        let mut values = [0; 8];
        for (index, value) in (0..).zip(values.iter_mut().rev()) {
            *value = self.peek(index * size.length(), size)?;
        }
        self.drop_from_stack(8 * size.length());
        for (value, register) in values.into_iter().zip(Gpr::ALL) {
            if register != Gpr::Rsp {
                self.set_register(GprPart::new(register, size), value);
            }
        }
        Ok(())
    }
}
