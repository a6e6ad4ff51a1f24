// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conditional jumps and loops, and near returns.

use iced_x86::{Code, Mnemonic};

use super::Flow;
use super::bus::GuestBus;
use super::condition::Condition;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::outcome::{Step, Stop};
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::state::{Gpr, rflags::ZF};

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Jcc, JCXZ and LOOP; `None` if the instruction is none of them.
    pub fn conditional_branch(&mut self, mnemonic: Mnemonic) -> Option<Step<Flow>> {
        if let Some(condition) = Condition::of_jump(mnemonic) {
            return Some(self.jump_if(condition.holds(self.flags)));
        }
        match mnemonic {
            Mnemonic::Jcxz => Some(self.jump_if_counter_is_zero(AccessWidth::Word)),
            Mnemonic::Jecxz => Some(self.jump_if_counter_is_zero(AccessWidth::Dword)),
            Mnemonic::Jrcxz => Some(self.jump_if_counter_is_zero(AccessWidth::Qword)),
            Mnemonic::Loop => Some(self.count_down(true)),
            Mnemonic::Loope => Some(self.count_down(self.flag(ZF))),
            Mnemonic::Loopne => Some(self.count_down(!self.flag(ZF))),
            _ => None,
        }
    }

    fn jump_if(&mut self, taken: bool) -> Step<Flow> {
        if taken { self.branch_target().map(Flow::Jump) } else { Ok(Flow::Next) }
    }

    fn jump_if_counter_is_zero(&mut self, size: AccessWidth) -> Step<Flow> {
        let counter = self.register(GprPart::new(Gpr::Rcx, size));
        self.jump_if(counter == 0)
    }

    /// LOOP and its conditional forms. No flag changes.
    fn count_down(&mut self, condition: bool) -> Step<Flow> {
        let counter = GprPart::new(Gpr::Rcx, loop_counter(self.instruction.code())?);
        let left = self.register(counter).wrapping_sub(1) & counter.size.mask();
        let flow = self.jump_if(left != 0 && condition)?;
        self.set_register(counter, left);
        Ok(flow)
    }

    /// Near RET, which may drop arguments.
    pub fn near_return(&mut self) -> Step<Flow> {
        let size = match self.instruction.code() {
            Code::Retnw | Code::Retnw_imm16 => AccessWidth::Word,
            Code::Retnd | Code::Retnd_imm16 => AccessWidth::Dword,
            Code::Retnq | Code::Retnq_imm16 => AccessWidth::Qword,
            _ => return Err(Stop::Unsupported),
        };
        let target = self.peek(0, size)?;
        self.check_target(target)?;
        let arguments = self.instruction.try_immediate(0).unwrap_or(0) & 0xFFFF;
        self.drop_from_stack(size.length() + arguments);
        Ok(Flow::Jump(target))
    }
}

/// The size of the count register, which is the address size.
fn loop_counter(code: Code) -> Step<AccessWidth> {
    Ok(match code {
        Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX => AccessWidth::Word,
        Code::Loop_rel8_16_RCX
        | Code::Loop_rel8_64_RCX
        | Code::Loope_rel8_16_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loopne_rel8_16_RCX
        | Code::Loopne_rel8_64_RCX => AccessWidth::Qword,
        Code::Loop_rel8_16_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loop_rel8_64_ECX
        | Code::Loope_rel8_16_ECX
        | Code::Loope_rel8_32_ECX
        | Code::Loope_rel8_64_ECX
        | Code::Loopne_rel8_16_ECX
        | Code::Loopne_rel8_32_ECX
        | Code::Loopne_rel8_64_ECX => AccessWidth::Dword,
        _ => return Err(Stop::Unsupported),
    })
}
