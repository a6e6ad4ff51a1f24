// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bit tests and bit counts.

use iced_x86::OpKind;

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::{FlagUpdate, STATUS, when};
use super::memory::Change;
use super::operand::Place;
use super::outcome::Step;
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::rflags::{CF, ZF};

/// What happens to the tested bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BitOperation {
    Test,
    Set,
    Reset,
    Complement,
}

impl BitOperation {
    fn compute(self, value: u64, bit: u64) -> Change {
        let result = match self {
            Self::Test => value,
            Self::Set => value | bit,
            Self::Reset => value & !bit,
            Self::Complement => value ^ bit,
        };
        Change { value: result, flags: FlagUpdate::new(CF, when(value & bit != 0, CF)) }
    }
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Count {
    LeadingZeros,
    TrailingZeros,
    Ones,
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// BT, BTS, BTR, BTC.
    pub fn bit(&mut self, operation: BitOperation) -> Step<()> {
        let offset = self.read_operand(1)?;
        let size = match self.place(0)? {
            Place::Memory(size) if self.instruction.op_kind(1) == OpKind::Register => {
                return self.bit_string(operation, offset, size);
            }
            place => place.size(),
        };
        let bit = 1 << (offset & u64::from(size.bits() - 1));
        if operation == BitOperation::Test {
            let value = self.read_operand(0)?;
            self.apply(operation.compute(value, bit).flags);
            return Ok(());
        }
        let locked = self.is_locked();
        self.modify_operand(0, locked, |value| operation.compute(value, bit)).map(drop)
    }

    /// With a bit number in a register, memory is a bit string that extends both ways of the
    /// operand (AMD APM vol. 3, BT).
    fn bit_string(&mut self, operation: BitOperation, number: u64, size: AccessWidth) -> Step<()> {
        let number = size.sign_extend(number) as i64;
        let bits = i64::from(size.bits());
        let element = number.div_euclid(bits) * size.length() as i64;
        let bit = 1 << number.rem_euclid(bits);
        let address = self.effective_address()?;
        let offset = address.offset.wrapping_add(element as u64) & address.mask;
        let test = operation == BitOperation::Test;
        let access = if test { AccessKind::Read } else { AccessKind::Write };
        let span = self.span(address.segment, offset, size.length(), access)?;
        let flags = if test {
            operation.compute(self.read_span(&span)?, bit).flags
        } else {
            let locked = self.is_locked();
            self.update_span(&span, locked, |value| operation.compute(value, bit))?.1.flags
        };
        self.apply(flags);
        Ok(())
    }

    /// BSF (lowest bit) and BSR (highest). With a source of zero the destination keeps its
    /// value (AMD APM vol. 3, BSF).
    pub fn bit_scan(&mut self, highest: bool) -> Step<()> {
        let destination = self.register_operand(0)?;
        let source = self.read_operand(1)?;
        let index = if highest { source.checked_ilog2() } else { Some(source.trailing_zeros()) };
        if let (true, Some(index)) = (source != 0, index) {
            self.set_register(destination, u64::from(index));
        }
        self.apply(FlagUpdate::new(ZF, when(source == 0, ZF)));
        Ok(())
    }

    /// LZCNT, TZCNT, POPCNT.
    pub fn count_bits(&mut self, count: Count) -> Step<()> {
        let destination = self.register_operand(0)?;
        let size = destination.size;
        let source = self.read_operand(1)?;
        let result = match count {
            Count::LeadingZeros => source.leading_zeros() - (64 - size.bits()),
            Count::TrailingZeros => source.trailing_zeros().min(size.bits()),
            Count::Ones => source.count_ones(),
        };
        self.set_register(destination, u64::from(result));
        self.apply(if count == Count::Ones {
            FlagUpdate::new(STATUS, when(source == 0, ZF))
        } else {
            FlagUpdate::new(CF | ZF, when(source == 0, CF) | when(result == 0, ZF))
        });
        Ok(())
    }
}
