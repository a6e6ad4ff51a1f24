// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completing instructions: skipping those that were handled, emulating the rest.

use iced_x86::Instruction;

use super::{
    Vcpu,
    known_code::CodePlace,
    view::{BusView, CpuView},
};
use crate::{
    EndReason,
    backend::VcpuBackend,
    emulate::{self, Outcome, SimpleMove, TriedAccess},
    memory::text,
    state::{Exception, dr6, rflags},
};

impl<V: VcpuBackend> Vcpu<V> {
    /// The instruction was handled: goes on behind it.
    pub(super) fn skip_instruction(&mut self) -> Result<(), Exception> {
        match self.next_instruction() {
            Ok(next) => self.go_on_at(next),
            Err(outcome) => self.conclude(outcome),
        }
    }

    /// The same for the instruction that the CPU exited for, if that is not one that the emulator
    /// handed back.
    #[inline(always)]
    pub(super) fn skip_exited(&mut self) -> Result<(), Exception> {
        match self.next_by_a_glance() {
            Some(next) => self.go_on_at(next),
            None => self.skip_by_decoding(),
        }
    }

    #[cold]
    fn skip_by_decoding(&mut self) -> Result<(), Exception> {
        self.skip_instruction()
    }

    /// The instruction is done; the next one is at `next`.
    #[inline(always)]
    fn go_on_at(&mut self, next: u64) -> Result<(), Exception> {
        self.hardware.set_rip(next);
        self.hardware.clear_interrupt_shadow();
        if self.hardware.rflags() & (rflags::RF | rflags::TF) == 0 {
            return Ok(());
        }
        self.end_with_flags()
    }

    #[cold]
    fn end_with_flags(&mut self) -> Result<(), Exception> {
        let flags = self.hardware.rflags();
        self.hardware.set_rflags(flags & !rflags::RF);
        if flags & rflags::TF != 0 { self.single_step() } else { Ok(()) }
    }

    /// Address of the instruction behind the one that exited.
    pub(super) fn next_instruction(&mut self) -> Result<u64, Outcome> {
        if let Some(next) = self.intercepted_next.or_else(|| self.next_by_a_glance()) {
            return Ok(next);
        }
        let rip = self.hardware.rip();
        if let Some(place) = self.code_place()
            && let Some(instruction) = self.known_code.learn(place)
        {
            return Ok(rip.wrapping_add(instruction.length.into()));
        }
        let (mut cpu, mut bus) = self.views();
        let length = emulate::instruction_length(&mut cpu, &mut bus, None)?;
        Ok(self.address_after(rip, length as u64))
    }

    /// That address, if the hardware tells it or the instruction is known.
    #[inline(always)]
    fn next_by_a_glance(&self) -> Option<u64> {
        if let Some(next) = self.hardware.next_rip() {
            return Some(next);
        }
        let place = self.code_place()?;
        let known = self.known_code.get(place)?;
        Some(place.rip.wrapping_add(known.length.into()))
    }

    /// Where the instruction is, in 64-bit code on tables of four levels.
    #[inline(always)]
    fn code_place(&self) -> Option<CodePlace> {
        let cr3 = self.hardware.cr3_of_64_bit_code()?;
        Some(CodePlace { cr3, rip: self.hardware.rip() })
    }

    /// RIP is 64 bits wide in 64-bit code only.
    fn address_after(&self, rip: u64, length: u64) -> u64 {
        let next = rip.wrapping_add(length);
        if self.is_64_bit_code() { next } else { next & 0xFFFF_FFFF }
    }

    #[inline]
    pub(super) fn is_64_bit_code(&self) -> bool {
        self.hardware.is_64_bit_code()
    }

    #[cold]
    fn single_step(&mut self) -> Result<(), Exception> {
        let (status, control) = self.hardware.debug_status_control();
        self.hardware.set_debug_status_control(status | dr6::SINGLE_STEP, control);
        Err(Exception::DEBUG)
    }

    /// Emulates the instruction that exited.
    pub(super) fn emulate(&mut self) -> Result<(), Exception> {
        let outcome = self.try_to_emulate();
        self.conclude(outcome)
    }

    /// Emulates the instruction that exited, as far as possible.
    pub(super) fn try_to_emulate(&mut self) -> Outcome {
        let reported = self.reported_bytes();
        let (mut cpu, mut bus) = self.views();
        let bytes = reported.as_ref().map(|(bytes, count)| &bytes[..*count]);
        emulate::emulate(&mut cpu, &mut bus, bytes)
    }

    /// Emulates the instruction that exited for the access `tried`.
    pub(super) fn emulate_access(&mut self, tried: TriedAccess) -> Result<(), Exception> {
        match self.try_to_move(tried) {
            Some(outcome) => self.conclude_move(outcome),
            None => self.emulate(),
        }
    }

    /// Emulates the instruction that exited for the access `tried` by the short way, if that leads
    /// to the end. If not, nothing has changed.
    #[inline]
    pub(super) fn try_to_move(&mut self, tried: TriedAccess) -> Option<Outcome> {
        let found = self.simple_move()?;
        let (mut cpu, mut bus) = self.views();
        emulate::emulate_move(&mut cpu, &mut bus, tried, &found)
    }

    /// The instruction that exited, if it is 64-bit code and such a move.
    #[inline]
    fn simple_move(&mut self) -> Option<SimpleMove> {
        if let Some((bytes, count)) = self.reported_bytes() {
            let code = bytes.get(..count).filter(|_| self.is_64_bit_code())?;
            return SimpleMove::decode(code);
        }
        let place = self.code_place()?;
        match self.known_code.get(place) {
            Some(known) => known.simple_move,
            None => self.known_code.learn(place)?.simple_move,
        }
    }

    #[inline]
    pub(super) fn conclude_move(&mut self, outcome: Outcome) -> Result<(), Exception> {
        match outcome {
            Outcome::Done { debug_trap: false } => Ok(()),
            outcome => self.conclude(outcome),
        }
    }

    /// A copy of the bytes that the hardware reports, and how many they are.
    fn reported_bytes(&self) -> Option<([u8; emulate::MAX_INSTRUCTION_LENGTH], usize)> {
        let bytes = self.hardware.instruction_bytes()?;
        let mut copy = [0; emulate::MAX_INSTRUCTION_LENGTH];
        let count = bytes.len().min(copy.len());
        copy[..count].copy_from_slice(&bytes[..count]);
        Some((copy, count))
    }

    pub(super) fn conclude(&mut self, outcome: Outcome) -> Result<(), Exception> {
        let why = match outcome {
            Outcome::Done { debug_trap } | Outcome::Repeat { debug_trap } => {
                return if debug_trap { self.single_step() } else { Ok(()) };
            }
            Outcome::Fault(exception) => return Err(exception),
            Outcome::Intercepted { exit, next_rip } => {
                // It may be an exit of any kind.
                self.settled = false;
                self.intercepted_next = Some(next_rip);
                let handled = self.handle(exit);
                self.intercepted_next = None;
                return handled;
            }
            Outcome::Unsupported(bytes) => text(format_args!("the instruction {bytes}")),
            Outcome::UnsupportedPaging => text(format_args!("this paging mode")),
            Outcome::BusError { address, access } => {
                text(format_args!("{access:?} at guest-physical {address}"))
            }
        };
        let rip = self.hardware.rip();
        self.end(EndReason::EmulationFailure { vcpu: self.index, rip, why });
        Ok(())
    }

    /// Decodes the instruction that exited; for exits whose operands the hardware does not
    /// tell. `None` if that has ended the VM.
    pub(super) fn decode(&mut self) -> Result<Option<Instruction>, Exception> {
        let (mut cpu, mut bus) = self.views();
        match emulate::decode(&mut cpu, &mut bus) {
            Ok(instruction) => Ok(Some(instruction)),
            Err(outcome) => self.conclude(outcome).map(|()| None),
        }
    }

    /// The vCPU and its surroundings as the emulator sees them.
    pub(super) fn views(&mut self) -> (CpuView<'_, V>, BusView<'_>) {
        let cpu = CpuView {
            host: self.core.host,
            hardware: &mut self.hardware,
            paging: self.paging,
            has_tsc_aux: self.core.cpuid.has_tsc_aux(),
        };
        let bus = BusView {
            core: &self.core,
            vcpu: self.index,
            apic: &mut self.apic,
            statistics: &mut self.statistics,
        };
        (cpu, bus)
    }
}
