// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sign extension of the accumulator, byte swaps, table look-up, addresses, and bounds.

use iced_x86::{MemorySize, Mnemonic};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::{FlagUpdate, when};
use super::memory::Change;
use super::outcome::{Step, Stop};
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::{
    Exception, Gpr,
    rflags::{CF, ZF},
};

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// CBW, CWDE, CDQE: the accumulator becomes twice as wide; `size` is the wider.
    pub fn extend_accumulator(&mut self, size: AccessWidth) -> Step<()> {
        let half = match size {
            AccessWidth::Byte | AccessWidth::Word => AccessWidth::Byte,
            AccessWidth::Dword => AccessWidth::Word,
            AccessWidth::Qword => AccessWidth::Dword,
        };
        let value = self.register(GprPart::new(Gpr::Rax, half));
        self.set_register(GprPart::new(Gpr::Rax, size), half.sign_extend(value));
        Ok(())
    }

    /// CWD, CDQ, CQO: RDX is filled with the sign of RAX.
    pub fn sign_to_rdx(&mut self, size: AccessWidth) -> Step<()> {
        let negative = self.register(GprPart::new(Gpr::Rax, size)) & size.sign_bit() != 0;
        let fill = if negative { u64::MAX } else { 0 };
        self.set_register(GprPart::new(Gpr::Rdx, size), fill);
        Ok(())
    }

    /// BSWAP; of 16 bits, whose result is undefined, it makes zero.
    pub fn swap_bytes(&mut self) -> Step<()> {
        let register = self.register_operand(0)?;
        let value = self.register(register);
        let swapped = match register.size {
            AccessWidth::Dword => u64::from((value as u32).swap_bytes()),
            AccessWidth::Qword => value.swap_bytes(),
            AccessWidth::Byte | AccessWidth::Word => 0,
        };
        self.set_register(register, swapped);
        Ok(())
    }

    /// LEA.
    pub fn load_effective_address(&mut self) -> Step<()> {
        let register = self.register_operand(0)?;
        let address = self.effective_address()?;
        self.set_register(register, address.offset);
        Ok(())
    }

    /// XLAT.
    pub fn translate_byte(&mut self) -> Step<()> {
        let span = self.operand_span(1, AccessKind::Read)?;
        let value = self.read_span(&span)?;
        self.set_register(GprPart::new(Gpr::Rax, AccessWidth::Byte), value);
        Ok(())
    }

    /// SALC: AL is filled with the carry.
    pub fn set_al_on_carry(&mut self) -> Step<()> {
        let fill = if self.flag(CF) { u64::MAX } else { 0 };
        self.set_register(GprPart::new(Gpr::Rax, AccessWidth::Byte), fill);
        Ok(())
    }

    /// BOUND: #BR if the signed index is not within the pair in memory.
    pub fn check_bounds(&mut self) -> Step<()> {
        let register = self.register_operand(0)?;
        let size = match self.instruction.memory_size() {
            MemorySize::Bound16_WordWord => AccessWidth::Word,
            MemorySize::Bound32_DwordDword => AccessWidth::Dword,
            _ => return Err(Stop::Unsupported),
        };
        let span = self.operand_span(size.length() * 2, AccessKind::Read)?;
        let pair = self.read_span(&span)?;
        let signed = |value| size.sign_extend(value) as i64;
        let index = signed(self.register(register));
        if (signed(pair)..=signed(pair >> size.bits())).contains(&index) {
            Ok(())
        } else {
            Err(Exception::BOUND.into())
        }
    }

    /// ARPL: raises the requested privilege level of a selector; #UD outside protected mode.
    pub fn adjust_requested_privilege(&mut self) -> Step<()> {
        const LEVEL: u64 = 3;
        if !self.mode.descriptors {
            return Err(Exception::INVALID_OPCODE.into());
        }
        let wanted = self.read_operand(1)? & LEVEL;
        self.modify_operand(0, false, |selector| {
            let raised = selector & LEVEL < wanted;
            let value = if raised { selector & !LEVEL | wanted } else { selector };
            Change { value, flags: FlagUpdate::new(ZF, when(raised, ZF)) }
        })
        .map(drop)
    }

    /// The instructions of this file; `None` if this is none of them.
    pub fn conversion(&mut self, mnemonic: Mnemonic) -> Option<Step<()>> {
        Some(match mnemonic {
            Mnemonic::Cbw => self.extend_accumulator(AccessWidth::Word),
            Mnemonic::Cwde => self.extend_accumulator(AccessWidth::Dword),
            Mnemonic::Cdqe => self.extend_accumulator(AccessWidth::Qword),
            Mnemonic::Cwd => self.sign_to_rdx(AccessWidth::Word),
            Mnemonic::Cdq => self.sign_to_rdx(AccessWidth::Dword),
            Mnemonic::Cqo => self.sign_to_rdx(AccessWidth::Qword),
            Mnemonic::Bswap => self.swap_bytes(),
            Mnemonic::Lea => self.load_effective_address(),
            Mnemonic::Xlatb => self.translate_byte(),
            Mnemonic::Salc => self.set_al_on_carry(),
            Mnemonic::Bound => self.check_bounds(),
            Mnemonic::Arpl => self.adjust_requested_privilege(),
            _ => return None,
        })
    }
}
