// SPDX-License-Identifier: MIT OR Apache-2.0
//! XCHG, XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B.

use iced_x86::OpKind;

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::{FlagUpdate, add, sub, when};
use super::memory::Change;
use super::operand::Place;
use super::outcome::{Step, Stop};
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::rflags::ZF;
use crate::state::{Exception, Gpr};

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// XCHG: always locked with memory.
    pub fn exchange(&mut self) -> Step<()> {
        // Either operand may be the one in memory.
        let register_first = self.instruction.op_kind(1) == OpKind::Memory;
        let (place, register) = if register_first { (1, 0) } else { (0, 1) };
        let register = self.register_operand(register)?;
        let value = self.register(register);
        let old =
            self.modify_operand(place, true, |_| Change { value, flags: FlagUpdate::NONE })?;
        self.set_register(register, old);
        Ok(())
    }

    /// XADD.
    pub fn exchange_add(&mut self) -> Step<()> {
        let register = self.register_operand(1)?;
        let addend = self.register(register);
        let size = register.size;
        let locked = self.is_locked();
        if self.instruction.op_kind(0) == OpKind::Register {
            // The destination is written last: XADD of a register with itself doubles it.
            let destination = self.register_operand(0)?;
            let old = self.register(destination);
            let (sum, flags) = add(old, addend, false, size);
            self.set_register(register, old);
            self.set_register(destination, sum);
            self.apply(flags);
            return Ok(());
        }
        let old = self.modify_operand(0, locked, |old| {
            let (value, flags) = add(old, addend, false, size);
            Change { value, flags }
        })?;
        self.set_register(register, old);
        Ok(())
    }

    /// CMPXCHG. A destination in memory is written in any case, with its old value if the
    /// comparison fails. A register then stays as it is, upper half included (seen on AMD
    /// processors; Intel's manual clears the upper half).
    pub fn compare_exchange(&mut self) -> Step<()> {
        let source = self.register_operand(1)?;
        let accumulator = GprPart::new(Gpr::Rax, source.size);
        let (expected, new) = (self.register(accumulator), self.register(source));
        if let Place::Register(destination) = self.place(0)? {
            let old = self.register(destination);
            self.apply(sub(expected, old, false, source.size).1);
            let (written, value) =
                if old == expected { (destination, new) } else { (accumulator, old) };
            self.set_register(written, value);
            return Ok(());
        }
        let locked = self.is_locked();
        let old = self.modify_operand(0, locked, |old| {
            let flags = sub(expected, old, false, source.size).1;
            Change { value: if old == expected { new } else { old }, flags }
        })?;
        if old != expected {
            self.set_register(accumulator, old);
        }
        Ok(())
    }

    /// CMPXCHG8B (`half` is a doubleword) and CMPXCHG16B (a quadword).
    pub fn compare_exchange_pair(&mut self, half: AccessWidth) -> Step<()> {
        let length = half.length() * 2;
        let address = self.effective_address()?;
        let linear = self.linear(address.segment, address.offset, length, AccessKind::Write)?;
        if half == AccessWidth::Qword && linear % length != 0 {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        let span = self.span(address.segment, address.offset, length, AccessKind::Write)?;
        let expected = self.register_pair(Gpr::Rdx, Gpr::Rax, half);
        let new = self.register_pair(Gpr::Rcx, Gpr::Rbx, half);
        let locked = self.is_locked();
        let old = if half == AccessWidth::Dword {
            let choose = |old: u64| {
                let value = if u128::from(old) == expected { new as u64 } else { old };
                Change { value, flags: FlagUpdate::NONE }
            };
            u128::from(self.update_span(&span, locked, choose)?.0)
        } else {
            let old = self.read_wide(&span)?;
            let value = if old == expected { new } else { old };
            if !self.exchange_wide(&span, locked, old, value)? {
                return Err(Stop::Contended);
            }
            old
        };
        self.finish_pair(old, expected, half);
        Ok(())
    }

    /// Sets ZF and, if the comparison failed, the accumulator pair.
    fn finish_pair(&mut self, old: u128, expected: u128, half: AccessWidth) {
        let equal = old == expected;
        if !equal {
            self.set_register(GprPart::new(Gpr::Rax, half), old as u64);
            self.set_register(GprPart::new(Gpr::Rdx, half), (old >> half.bits()) as u64);
        }
        self.apply(FlagUpdate::new(ZF, when(equal, ZF)));
    }

    /// The value of two registers side by side.
    pub fn register_pair(&self, high: Gpr, low: Gpr, size: AccessWidth) -> u128 {
        let high = self.register(GprPart::new(high, size));
        let low = self.register(GprPart::new(low, size));
        u128::from(high) << size.bits() | u128::from(low)
    }
}
