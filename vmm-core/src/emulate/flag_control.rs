// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions on the flags themselves: CLC to STD, CLI and STI, LAHF and SAHF, PUSHF and
//! POPF.

use iced_x86::Mnemonic;

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::FlagUpdate;
use super::outcome::Step;
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::state::rflags::{AC, AF, CF, DF, FIXED, ID, IF, IOPL, NT, OF, PF, RF, SF, TF, VM, ZF};
use crate::state::{Exception, Gpr, InterruptShadow};

const AH: GprPart = GprPart { register: Gpr::Rax, size: AccessWidth::Byte, high_byte: true };
/// The flags that LAHF and SAHF move.
const LOW: u64 = SF | ZF | AF | PF | CF;
/// The flags that any code may load with POPF.
const PLAIN: u64 = CF | PF | AF | ZF | SF | TF | DF | OF | NT | AC | ID;
const MOST_PRIVILEGE: u64 = 3;

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// The instructions of this file; `None` if this is none of them.
    pub fn flag_control(&mut self, mnemonic: Mnemonic) -> Option<Step<()>> {
        let update = match mnemonic {
            Mnemonic::Clc => FlagUpdate::new(CF, 0),
            Mnemonic::Stc => FlagUpdate::new(CF, CF),
            Mnemonic::Cmc => FlagUpdate::new(CF, !self.flags & CF),
            Mnemonic::Cld => FlagUpdate::new(DF, 0),
            Mnemonic::Std => FlagUpdate::new(DF, DF),
            Mnemonic::Sahf => FlagUpdate::new(LOW, self.register(AH)),
            Mnemonic::Lahf => {
                self.set_register(AH, self.flags & LOW | FIXED);
                FlagUpdate::NONE
            }
            Mnemonic::Cli => return Some(self.set_interrupt_flag(false)),
            Mnemonic::Sti => return Some(self.set_interrupt_flag(true)),
            Mnemonic::Pushf => return Some(self.push_flags(AccessWidth::Word)),
            Mnemonic::Pushfd => return Some(self.push_flags(AccessWidth::Dword)),
            Mnemonic::Pushfq => return Some(self.push_flags(AccessWidth::Qword)),
            Mnemonic::Popf => return Some(self.pop_flags(AccessWidth::Word)),
            Mnemonic::Popfd => return Some(self.pop_flags(AccessWidth::Dword)),
            Mnemonic::Popfq => return Some(self.pop_flags(AccessWidth::Qword)),
            _ => return None,
        };
        self.apply(update);
        Some(Ok(()))
    }

    fn iopl(&self) -> u64 {
        (self.flags & IOPL) >> IOPL.trailing_zeros()
    }

    /// May the code change RFLAGS.IF?
    fn controls_interrupts(&self) -> bool {
        !self.mode.protected || u64::from(self.cpl) <= self.iopl()
    }

    /// #GP(0) in virtual-8086 mode unless IOPL is 3. The virtual interrupt flag, which CPUID
    /// does not show, is not modelled.
    pub fn require_virtual_8086_privilege(&self) -> Step<()> {
        if self.mode.virtual_8086 && self.iopl() < MOST_PRIVILEGE {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        Ok(())
    }

    fn set_interrupt_flag(&mut self, enabled: bool) -> Step<()> {
        if !self.controls_interrupts() {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        if enabled && !self.flag(IF) {
            self.shadow = Some(InterruptShadow::Sti);
        }
        self.apply(FlagUpdate::new(IF, if enabled { IF } else { 0 }));
        Ok(())
    }

    fn push_flags(&mut self, size: AccessWidth) -> Step<()> {
        self.require_virtual_8086_privilege()?;
        self.push_value(self.flags & !(VM | RF), size)
    }

    fn pop_flags(&mut self, size: AccessWidth) -> Step<()> {
        self.require_virtual_8086_privilege()?;
        let value = self.peek(0, size)?;
        self.drop_from_stack(size.length());
        self.load_flags(value, size);
        Ok(())
    }

    /// Loads the flags that the privilege level allows (Intel SDM vol. 2, POPF and IRET).
    pub fn load_flags(&mut self, value: u64, size: AccessWidth) {
        let mut allowed = PLAIN;
        if self.controls_interrupts() {
            allowed |= IF;
        }
        if self.cpl == 0 {
            allowed |= IOPL;
        }
        self.apply(FlagUpdate::new(allowed & size.mask(), value));
    }
}
