// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every part of the emulator works on: one CPU, one bus, one instruction.

use iced_x86::Instruction;

use super::bus::GuestBus;
use super::cpu::{EmulatorCpu, Mode, address_space};
use super::flags::FlagUpdate;
use super::outcome::{InstructionBytes, MAX_INSTRUCTION_LENGTH, Step, Stop};
use crate::address::{GuestPhysAddr, GuestVirtAddr};
use crate::paging::walk::{Access, AccessKind, AddressSpace, Privilege, TranslateError, translate};
use crate::state::{Exception, InterruptShadow, Segment, SegmentRegister, rflags};

/// Emulation of one instruction.
pub(super) struct Context<'a, C, B> {
    pub cpu: &'a mut C,
    pub bus: &'a mut B,
    pub mode: Mode,
    pub space: AddressSpace,
    pub cpl: u8,
    pub cs: Segment,
    /// RFLAGS at the start; `flags` goes to the CPU when the instruction completes.
    pub flags: u64,
    /// RFLAGS.TF was set at the start, and the instruction does not suppress the trap.
    pub debug_trap: bool,
    /// The shadow that begins when the instruction completes.
    pub shadow: Option<InterruptShadow>,
    pub instruction: Instruction,
    pub bytes: InstructionBytes,
}

impl<'a, C: EmulatorCpu, B: GuestBus> Context<'a, C, B> {
    pub fn new(cpu: &'a mut C, bus: &'a mut B) -> Self {
        let space = address_space(cpu);
        let flags = cpu.rflags();
        let cs = cpu.segment(SegmentRegister::Cs);
        let mode = Mode::of(&space.control, flags, &cs);
        let cpl = cpu.cpl();
        let bytes = InstructionBytes { bytes: [0; MAX_INSTRUCTION_LENGTH], length: 0 };
        Self {
            cpu,
            bus,
            mode,
            space,
            cpl,
            cs,
            flags,
            debug_trap: flags & rflags::TF != 0,
            shadow: None,
            instruction: Instruction::new(),
            bytes,
        }
    }

    /// Privilege of an explicit access.
    fn privilege(&self) -> Privilege {
        if self.cpl == 3 { Privilege::User } else { Privilege::Supervisor }
    }

    /// Translates the address of an explicit access.
    pub fn translate(&mut self, linear: u64, kind: AccessKind) -> Step<GuestPhysAddr> {
        self.translate_as(linear, Access { kind, privilege: self.privilege() })
    }

    /// Translates `linear` for `access`.
    pub fn translate_as(&mut self, linear: u64, access: Access) -> Step<GuestPhysAddr> {
        match translate(&*self.bus, &self.space, GuestVirtAddr::new(linear), access) {
            Ok(translation) => Ok(translation.address),
            Err(TranslateError::PageFault(code)) => Err(Exception::page_fault(linear, code).into()),
            Err(TranslateError::NonCanonical) => Err(Exception::GENERAL_PROTECTION.into()),
            Err(TranslateError::Contended) => Err(Stop::Contended),
            Err(TranslateError::UnsupportedMode) => Err(Stop::UnsupportedPaging),
        }
    }

    /// RIP of the next instruction.
    pub fn next_rip(&self) -> u64 {
        self.mode.advance(self.cpu.rip(), self.instruction.len() as u64)
    }

    /// Takes over the flags an operation defines.
    pub fn apply(&mut self, update: FlagUpdate) {
        self.flags = (self.flags & !update.mask) | (update.value & update.mask);
    }

    /// True if the flag `bit` of [`rflags`](crate::state::rflags) is set.
    pub fn flag(&self, bit: u64) -> bool {
        self.flags & bit != 0
    }
}
