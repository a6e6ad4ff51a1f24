// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instruction table.

use iced_x86::Mnemonic;

use super::Flow;
use super::arith::{Binary, Unary};
use super::bits::{BitOperation, Count};
use super::bus::GuestBus;
use super::condition::Condition;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::outcome::{Step, Stop};
use super::shift::Shift;
use super::string::StringOperation;
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::Exception;

/// String instructions and their element size.
fn string_operation(mnemonic: Mnemonic) -> Option<(StringOperation, AccessWidth)> {
    use AccessWidth::{Byte, Dword, Qword, Word};
    use StringOperation::{Compare, Input, Load, Move, Output, Scan, Store};
    Some(match mnemonic {
        Mnemonic::Movsb => (Move, Byte),
        Mnemonic::Movsw => (Move, Word),
        Mnemonic::Movsd => (Move, Dword),
        Mnemonic::Movsq => (Move, Qword),
        Mnemonic::Stosb => (Store, Byte),
        Mnemonic::Stosw => (Store, Word),
        Mnemonic::Stosd => (Store, Dword),
        Mnemonic::Stosq => (Store, Qword),
        Mnemonic::Lodsb => (Load, Byte),
        Mnemonic::Lodsw => (Load, Word),
        Mnemonic::Lodsd => (Load, Dword),
        Mnemonic::Lodsq => (Load, Qword),
        Mnemonic::Scasb => (Scan, Byte),
        Mnemonic::Scasw => (Scan, Word),
        Mnemonic::Scasd => (Scan, Dword),
        Mnemonic::Scasq => (Scan, Qword),
        Mnemonic::Cmpsb => (Compare, Byte),
        Mnemonic::Cmpsw => (Compare, Word),
        Mnemonic::Cmpsd => (Compare, Dword),
        Mnemonic::Cmpsq => (Compare, Qword),
        Mnemonic::Insb => (Input, Byte),
        Mnemonic::Insw => (Input, Word),
        Mnemonic::Insd => (Input, Dword),
        Mnemonic::Outsb => (Output, Byte),
        Mnemonic::Outsw => (Output, Word),
        Mnemonic::Outsd => (Output, Dword),
        _ => return None,
    })
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Executes the decoded instruction.
    pub fn execute(&mut self) -> Step<Flow> {
        let mnemonic = self.instruction.mnemonic();
        if let Some(flow) = self.branch(mnemonic) {
            return flow;
        }
        // MOVSD and CMPSD also name SSE instructions; those have register operands.
        if let Some((operation, size)) = string_operation(mnemonic) {
            return self.string(operation, size);
        }
        self.execute_plain(mnemonic).map(|()| Flow::Next)
    }

    /// Instructions that go elsewhere; `None` if this is none of them.
    fn branch(&mut self, mnemonic: Mnemonic) -> Option<Step<Flow>> {
        if let Some(flow) = self.far_transfer(mnemonic) {
            return Some(flow);
        }
        match mnemonic {
            Mnemonic::Call => Some(self.call().map(Flow::Jump)),
            Mnemonic::Jmp => Some(self.branch_target().map(Flow::Jump)),
            Mnemonic::Ret => Some(self.near_return()),
            _ => self.conditional_branch(mnemonic),
        }
    }

    /// Instructions that go on with the next one.
    fn execute_plain(&mut self, mnemonic: Mnemonic) -> Step<()> {
        if mnemonic == Mnemonic::Mov
            && let Some(done) = self.move_system_register()
        {
            return done;
        }
        match mnemonic {
            Mnemonic::Mov | Mnemonic::Movnti | Mnemonic::Movzx => self.move_plain(),
            Mnemonic::Movsx | Mnemonic::Movsxd => self.move_sign_extended(),
            Mnemonic::Movbe => self.move_big_endian(),
            Mnemonic::In => self.port_in(),
            Mnemonic::Out => self.port_out(),
            Mnemonic::Push => self.push(),
            Mnemonic::Pop => self.pop(),
            Mnemonic::Xchg => self.exchange(),
            Mnemonic::Xadd => self.exchange_add(),
            Mnemonic::Cmpxchg => self.compare_exchange(),
            Mnemonic::Cmpxchg8b => self.compare_exchange_pair(AccessWidth::Dword),
            Mnemonic::Cmpxchg16b => self.compare_exchange_pair(AccessWidth::Qword),
            Mnemonic::Bt => self.bit(BitOperation::Test),
            Mnemonic::Bts => self.bit(BitOperation::Set),
            Mnemonic::Btr => self.bit(BitOperation::Reset),
            Mnemonic::Btc => self.bit(BitOperation::Complement),
            Mnemonic::Bsf => self.bit_scan(false),
            Mnemonic::Bsr => self.bit_scan(true),
            Mnemonic::Lzcnt => self.count_bits(Count::LeadingZeros),
            Mnemonic::Tzcnt => self.count_bits(Count::TrailingZeros),
            Mnemonic::Popcnt => self.count_bits(Count::Ones),
            _ => self.execute_arithmetic(mnemonic),
        }
    }

    fn execute_arithmetic(&mut self, mnemonic: Mnemonic) -> Step<()> {
        match mnemonic {
            Mnemonic::Add => self.binary(Binary::Add),
            Mnemonic::Adc => self.binary(Binary::AddWithCarry),
            Mnemonic::Sub => self.binary(Binary::Sub),
            Mnemonic::Sbb => self.binary(Binary::SubWithBorrow),
            Mnemonic::And => self.binary(Binary::And),
            Mnemonic::Or => self.binary(Binary::Or),
            Mnemonic::Xor => self.binary(Binary::Xor),
            Mnemonic::Cmp => self.compare(Binary::Sub),
            Mnemonic::Test => self.compare(Binary::And),
            Mnemonic::Inc => self.unary(Unary::Increment),
            Mnemonic::Dec => self.unary(Unary::Decrement),
            Mnemonic::Neg => self.unary(Unary::Negate),
            Mnemonic::Not => self.unary(Unary::Not),
            Mnemonic::Shl | Mnemonic::Sal => self.shift(Shift::Left),
            Mnemonic::Shr => self.shift(Shift::Right),
            Mnemonic::Sar => self.shift(Shift::ArithmeticRight),
            Mnemonic::Rol => self.shift(Shift::RotateLeft),
            Mnemonic::Ror => self.shift(Shift::RotateRight),
            Mnemonic::Rcl => self.shift(Shift::RotateCarryLeft),
            Mnemonic::Rcr => self.shift(Shift::RotateCarryRight),
            Mnemonic::Shld => self.shift_double(true),
            Mnemonic::Shrd => self.shift_double(false),
            Mnemonic::Mul => self.multiply_wide(false),
            Mnemonic::Imul if self.instruction.op_count() == 1 => self.multiply_wide(true),
            Mnemonic::Imul => self.multiply_truncated(),
            Mnemonic::Div => self.divide(false),
            Mnemonic::Idiv => self.divide(true),
            _ => self.execute_less_frequent(mnemonic),
        }
    }

    fn execute_less_frequent(&mut self, mnemonic: Mnemonic) -> Step<()> {
        if let Some(done) = self.flag_control(mnemonic) {
            return done;
        }
        if let Some(done) = self.conversion(mnemonic) {
            return done;
        }
        if let Some(done) = self.frame(mnemonic) {
            return done;
        }
        if let Some(done) = self.decimal(mnemonic) {
            return done;
        }
        if let Some(done) = self.system(mnemonic) {
            return done;
        }
        self.execute_rest(mnemonic)
    }

    /// Conditional instructions and those without effect here.
    fn execute_rest(&mut self, mnemonic: Mnemonic) -> Step<()> {
        if let Some(condition) = Condition::of_set(mnemonic) {
            return self.set_on_condition(condition);
        }
        if let Some(condition) = Condition::of_move(mnemonic) {
            return self.move_on_condition(condition);
        }
        match mnemonic {
            Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lss | Mnemonic::Lfs | Mnemonic::Lgs => {
                self.load_far_pointer(mnemonic)
            }
            Mnemonic::Nop
            | Mnemonic::Pause
            | Mnemonic::Endbr32
            | Mnemonic::Endbr64
            | Mnemonic::Mfence
            | Mnemonic::Lfence
            | Mnemonic::Sfence
            | Mnemonic::Prefetch
            | Mnemonic::Prefetchw
            | Mnemonic::Prefetchwt1
            | Mnemonic::Prefetchnta
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2 => Ok(()),
            // Cache flushes are subject to all checks of a byte read.
            Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => {
                self.operand_span(1, AccessKind::Read).map(drop)
            }
            Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => Err(Exception::INVALID_OPCODE.into()),
            _ => Err(Stop::Unsupported),
        }
    }
}
