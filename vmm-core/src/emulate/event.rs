// SPDX-License-Identifier: MIT OR Apache-2.0
//! Delivering interrupts and exceptions (Intel SDM vol. 3, 6.12 and 20.1.4).

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::descriptor::{GENERAL_PROTECTION, NOT_PRESENT, Selector};
use super::far::task_switch;
use super::flags::FlagUpdate;
use super::outcome::{Step, Stop};
use super::segment_load::CheckedSegment;
use crate::Event;
use crate::access::AccessWidth;
use crate::exit::TaskSwitchSource;
use crate::state::rflags::{AC, IF, NT, RF, TF, VM};
use crate::state::{Exception, SegmentRegister, Vector};

/// What comes through the interrupt table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Vectoring {
    vector: Vector,
    error_code: Option<u32>,
    /// INT n, INT3 or INTO, which the gate's DPL restricts.
    software: bool,
    /// RF in the flags that are pushed, so that a breakpoint on the instruction that faulted
    /// does not come again.
    resume: bool,
}

/// Where a gate leads.
struct Gate {
    selector: Selector,
    offset: u64,
    /// Size of what is pushed.
    size: AccessWidth,
    /// Interrupts stay enabled.
    is_trap: bool,
}

const NMI: Vector = Vector(2);
/// Exceptions that are traps or aborts, or #DB, whose handler decides.
const NOT_FAULTS: [u8; 5] = [1, 3, 4, 8, 18];

/// Bits of error codes: the event came from outside the program, and the index is one of the
/// IDT (Intel SDM vol. 3, 6.13).
const EXTERNAL: u32 = 1;
const IN_IDT: u32 = 2;

impl Vectoring {
    /// INT n, INT3 or INTO.
    pub const fn software(vector: Vector) -> Self {
        Self { vector, error_code: None, software: true, resume: false }
    }

    /// An interrupt, NMI or trap.
    pub const fn trap(vector: Vector) -> Self {
        Self { vector, error_code: None, software: false, resume: false }
    }

    fn exception(exception: Exception) -> Self {
        Self {
            vector: exception.vector,
            error_code: exception.error_code,
            software: false,
            resume: !NOT_FAULTS.contains(&exception.vector.0),
        }
    }

    /// The bit for error codes of faults during delivery.
    const fn external(self) -> u32 {
        if self.software { 0 } else { EXTERNAL }
    }

    /// A fault that blames the gate.
    fn gate_fault(self, vector: u8) -> Stop {
        let code = u32::from(self.vector.0) << 3 | IN_IDT | self.external();
        Exception::with_code(vector, code).into()
    }

    /// A fault that blames the code segment.
    fn segment_fault(self, vector: u8, selector: Selector) -> Stop {
        let code = u32::from(selector.0 & !3) | self.external();
        Exception::with_code(vector, code).into()
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Delivers `event` at the current instruction; returns where to go.
    pub fn deliver(&mut self, event: Event) -> Step<u64> {
        let rip = self.cpu.rip();
        let (vectoring, return_to) = match event {
            Event::Interrupt(vector) => (Vectoring::trap(vector), rip),
            Event::Nmi => (Vectoring::trap(NMI), rip),
            Event::Exception(exception) => (Vectoring::exception(exception), rip),
            Event::SoftwareInterrupt { vector, length } => {
                (Vectoring::software(vector), self.mode.advance(rip, length.into()))
            }
        };
        self.debug_trap = false;
        self.vector_to(vectoring, return_to)
    }

    /// Pushes flags and return address, changes the flags and returns the handler's address.
    pub fn vector_to(&mut self, vectoring: Vectoring, return_to: u64) -> Step<u64> {
        // The handler runs with TF clear, and INT n itself is not stepped.
        self.debug_trap = false;
        if !self.mode.protected {
            return self.vector_to_real_mode(vectoring, return_to);
        }
        if self.mode.virtual_8086 || self.mode.long {
            return Err(Stop::Unsupported);
        }
        let gate = self.gate(vectoring)?;
        let code = self.handler_segment(vectoring, &gate)?;
        if gate.offset > u64::from(code.segment.limit) {
            let fault = Exception::with_code(GENERAL_PROTECTION, vectoring.external());
            return Err(fault.into());
        }
        let resume = if vectoring.resume { RF } else { self.flags & RF };
        let flags = self.flags & !RF | resume;
        let mut frame = [flags, self.cs.selector.into(), return_to, 0];
        let length = match vectoring.error_code {
            Some(code) => {
                frame[3] = code.into();
                4
            }
            None => 3,
        };
        let room = self.room_on_stack::<4>(length, gate.size)?;
        // First, for another CPU may be in the way.
        self.commit_segment(code)?;
        self.push_into(&room, &frame)?;
        let masked = if gate.is_trap { 0 } else { IF };
        self.apply(FlagUpdate::new(TF | NT | RF | VM | masked, 0));
        Ok(gate.offset)
    }

    /// The table of far pointers that IDTR names (Intel SDM vol. 3, 20.1.4). No error code is
    /// pushed.
    fn vector_to_real_mode(&mut self, vectoring: Vectoring, return_to: u64) -> Step<u64> {
        let (_, idtr) = self.cpu.descriptor_tables();
        let at = u64::from(vectoring.vector.0) * 4;
        if at + 3 > u64::from(idtr.limit) {
            return Err(vectoring.gate_fault(GENERAL_PROTECTION));
        }
        let entry = self.read_system(idtr.base.wrapping_add(at), 4)?;
        let (selector, offset) = ((entry >> 16) as u16, entry & 0xFFFF);
        let code = self.real_mode_segment(SegmentRegister::Cs, selector);
        if offset > u64::from(code.segment.limit) {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        let frame = [self.flags, self.cs.selector.into(), return_to];
        self.push_all::<3>(&frame, AccessWidth::Word)?;
        self.commit_segment(code)?;
        self.apply(FlagUpdate::new(IF | TF | AC | RF, 0));
        Ok(offset)
    }

    /// The interrupt or trap gate of a vector (Intel SDM vol. 3, 6.11).
    fn gate(&mut self, vectoring: Vectoring) -> Step<Gate> {
        let (_, idtr) = self.cpu.descriptor_tables();
        let at = u64::from(vectoring.vector.0) * 8;
        if at + 7 > u64::from(idtr.limit) {
            return Err(vectoring.gate_fault(GENERAL_PROTECTION));
        }
        let raw = self.read_system(idtr.base.wrapping_add(at), 8)?;
        // Type with S: a task gate, or interrupt and trap gates of 16 and 32 bits.
        let code = match raw >> 40 & 0x1F {
            0x5 => None,
            0x6 => Some((AccessWidth::Word, false)),
            0x7 => Some((AccessWidth::Word, true)),
            0xE => Some((AccessWidth::Dword, false)),
            0xF => Some((AccessWidth::Dword, true)),
            _ => return Err(vectoring.gate_fault(GENERAL_PROTECTION)),
        };
        let dpl = (raw >> 45 & 3) as u8;
        if vectoring.software && dpl < self.cpl {
            return Err(vectoring.gate_fault(GENERAL_PROTECTION));
        }
        if raw >> 47 & 1 == 0 {
            return Err(vectoring.gate_fault(NOT_PRESENT));
        }
        let selector = Selector((raw >> 16) as u16);
        let Some((size, is_trap)) = code else {
            return Err(self.task_gate(vectoring, selector));
        };
        let offset = (raw & 0xFFFF | raw >> 32 & 0xFFFF_0000) & size.mask();
        Ok(Gate { selector, offset, size, is_trap })
    }

    /// Through a task gate: the flags are saved by the switch.
    fn task_gate(&mut self, vectoring: Vectoring, selector: Selector) -> Stop {
        if vectoring.resume {
            self.cpu.set_rflags(self.flags | RF);
        }
        task_switch(selector, TaskSwitchSource::Gate, vectoring.error_code)
    }

    /// The code segment of a handler that runs at the same privilege level.
    fn handler_segment(&mut self, vectoring: Vectoring, gate: &Gate) -> Step<CheckedSegment> {
        let selector = gate.selector;
        if selector.is_null() {
            let fault = Exception::with_code(GENERAL_PROTECTION, vectoring.external());
            return Err(fault.into());
        }
        let blame = |vector| vectoring.segment_fault(vector, selector);
        let descriptor = self.descriptor_or(selector, blame(GENERAL_PROTECTION))?;
        let attributes = descriptor.attributes();
        if !descriptor.is_code() || attributes.dpl() > self.cpl {
            return Err(blame(GENERAL_PROTECTION));
        }
        if !attributes.present() {
            return Err(blame(NOT_PRESENT));
        }
        if !descriptor.is_conforming() && attributes.dpl() < self.cpl {
            // To a stack of the inner level.
            return Err(Stop::Unsupported);
        }
        self.mark_accessed(SegmentRegister::Cs, selector.with_level(self.cpl), &descriptor)
    }
}
