// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completing instructions: skipping those that were handled, emulating the rest.

use iced_x86::Instruction;

use super::{
    Vcpu,
    view::{BusView, CpuView},
};
use crate::{
    EndReason,
    address::{GuestPhysAddr, GuestVirtAddr, PAGE_SIZE},
    backend::VcpuBackend,
    emulate::{self, Outcome, TriedAccess},
    memory::{Nearby, text},
    paging::walk::probe,
    state::{Exception, cr4, dr6, rflags},
};

/// Bytes that are read from memory at once.
const WORD: u64 = 8;

/// Code from RIP on, in the words of memory that it lies in.
struct Code {
    bytes: [u8; Self::BYTES],
    from: usize,
    to: usize,
}

impl Code {
    /// Words that hold the longest instruction, wherever it begins in the first.
    const WORDS: usize = 3;
    const BYTES: usize = Self::WORDS * WORD as usize;

    fn of_reported(reported: &[u8]) -> Self {
        let mut bytes = [0; Self::BYTES];
        let to = reported.len().min(bytes.len());
        bytes[..to].copy_from_slice(&reported[..to]);
        Self { bytes, from: 0, to }
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }
}

impl<V: VcpuBackend> Vcpu<V> {
    /// The instruction was handled: goes on behind it.
    pub(super) fn skip_instruction(&mut self) -> Result<(), Exception> {
        self.skip_at_once()
    }

    /// The same, as a part of its caller.
    #[inline(always)]
    pub(super) fn skip_at_once(&mut self) -> Result<(), Exception> {
        match self.next_by_a_glance() {
            Some(next) => self.go_on_at(next),
            None => self.skip_by_decoding(),
        }
    }

    #[cold]
    fn skip_by_decoding(&mut self) -> Result<(), Exception> {
        match self.next_instruction() {
            Ok(next) => self.go_on_at(next),
            Err(outcome) => self.conclude(outcome),
        }
    }

    /// The instruction is done; the next one is at `next`.
    #[inline(always)]
    fn go_on_at(&mut self, next: u64) -> Result<(), Exception> {
        self.hardware.set_rip(next);
        let flags = self.hardware.rflags();
        if flags & rflags::RF != 0 {
            self.hardware.set_rflags(flags & !rflags::RF);
        }
        self.hardware.clear_interrupt_shadow();
        if flags & rflags::TF != 0 { self.single_step() } else { Ok(()) }
    }

    /// Address of the instruction behind the one that exited.
    pub(super) fn next_instruction(&mut self) -> Result<u64, Outcome> {
        if let Some(next) = self.next_by_a_glance() {
            return Ok(next);
        }
        let rip = self.hardware.rip();
        let (mut cpu, mut bus) = self.views();
        let length = emulate::instruction_length(&mut cpu, &mut bus, None)?;
        Ok(self.address_after(rip, length as u64))
    }

    /// That address, if it is known or a look at the instruction's first bytes is enough.
    #[inline(always)]
    fn next_by_a_glance(&self) -> Option<u64> {
        if let Some(next) = self.intercepted_next.or_else(|| self.hardware.next_rip()) {
            return Some(next);
        }
        self.quick_length().map(|length| self.hardware.rip().wrapping_add(length as u64))
    }

    /// The length in 64-bit code, if the instruction is one of those that usually exit. The CPU
    /// has just fetched it, so what it checks on the way is not checked again.
    #[inline(always)]
    fn quick_length(&self) -> Option<usize> {
        /// Longest instruction of those.
        const BYTES: u64 = 3;
        let (mut memory, at) = self.code_place()?;
        if at.offset_in(PAGE_SIZE) > PAGE_SIZE - BYTES {
            return None;
        }
        let (word, skipped) = (at.align_down(8), at.offset_in(8));
        let mut bytes = memory.read_u64(word)? >> (8 * skipped);
        if skipped > 8 - BYTES {
            let next = memory.read_u64(word.checked_add(8)?)?;
            bytes |= next << (64 - 8 * skipped);
        }
        emulate::length_of_common(&bytes.to_le_bytes()[..BYTES as usize])
    }

    /// Where the instruction lies, in 64-bit code on tables of four levels that have not changed
    /// since the CPU fetched it; and the memory that it lies in.
    #[inline(always)]
    fn code_place(&self) -> Option<(Nearby<'_>, GuestPhysAddr)> {
        let cr3 = self.hardware.cr3_of_64_bit_code()?;
        if self.hardware.cr4() & cr4::LA57 != 0 {
            return None;
        }
        let mut memory = Nearby::new(&self.core.memory, &self.code_region)?;
        let at = probe(&mut memory, cr3, GuestVirtAddr::new(self.hardware.rip()))?;
        Some((memory, at))
    }

    /// RIP is 64 bits wide in 64-bit code only.
    fn address_after(&self, rip: u64, length: u64) -> u64 {
        let next = rip.wrapping_add(length);
        if self.is_64_bit_code() { next } else { next & 0xFFFF_FFFF }
    }

    #[inline]
    pub(super) fn is_64_bit_code(&self) -> bool {
        self.hardware.cr3_of_64_bit_code().is_some()
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
        let code = match self.reported_bytes() {
            Some((bytes, count)) if self.is_64_bit_code() => Code::of_reported(&bytes[..count]),
            Some(_) => return None,
            None => self.code()?,
        };
        let (mut cpu, mut bus) = self.views();
        emulate::emulate_move(&mut cpu, &mut bus, tried, code.as_slice())
    }

    #[inline]
    pub(super) fn conclude_move(&mut self, outcome: Outcome) -> Result<(), Exception> {
        match outcome {
            Outcome::Done { debug_trap: false } => Ok(()),
            outcome => self.conclude(outcome),
        }
    }

    /// The bytes from RIP on in 64-bit code, at least up to the end of the page or as many as an
    /// instruction may have. The CPU has just fetched it, so what it checks on the way is not
    /// checked again. `None` if the page tables have changed since.
    #[inline]
    fn code(&self) -> Option<Code> {
        let (mut memory, at) = self.code_place()?;
        let word = at.align_down(WORD);
        let words = ((PAGE_SIZE - word.offset_in(PAGE_SIZE)) / WORD).min(Code::WORDS as u64);
        let mut bytes = [0; Code::BYTES];
        let (all, _) = bytes.as_chunks_mut::<{ WORD as usize }>();
        for (number, bytes) in (0..words).zip(all) {
            *bytes = memory.read_u64(word.checked_add(number * WORD)?)?.to_le_bytes();
        }
        Some(Code { bytes, from: at.offset_in(WORD) as usize, to: (words * WORD) as usize })
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
