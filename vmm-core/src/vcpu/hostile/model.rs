// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold from one exit of a vCPU to its next entry.

use super::{
    exits::{self, Rule},
    state,
};
use crate::{
    Event, Exit,
    mock_backend::Registers,
    state::{Exception, cr0, rflags},
};

/// What an exit may lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// That depends.
    Anything,
    /// No exception but a single step.
    NoException,
    /// An exception of this vector.
    Exception(u8),
    /// This very exception.
    This(Exception),
}

/// A vCPU when it last exited.
pub struct Last {
    exit: Exit,
    expected: Expected,
    registers: Registers,
    /// Length of the instruction, if one was put there.
    length: Option<u64>,
}

const DEBUG: u8 = 1;
const DOUBLE_FAULT: u8 = 8;

/// What a second exception makes of the first (Intel SDM vol. 3, tables 6-4 and 6-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pair {
    Second,
    DoubleFault,
    Shutdown,
}

const fn pair(first: u8, second: u8) -> Pair {
    const fn is_contributory(vector: u8) -> bool {
        matches!(vector, 0 | 10..=13)
    }
    match (first, second) {
        (DOUBLE_FAULT, 14) => Pair::Shutdown,
        (DOUBLE_FAULT, second) if is_contributory(second) => Pair::Shutdown,
        (first, second) if is_contributory(first) && is_contributory(second) => Pair::DoubleFault,
        (14, 14) => Pair::DoubleFault,
        (14, second) if is_contributory(second) => Pair::DoubleFault,
        _ => Pair::Second,
    }
}

impl Last {
    /// The vCPU exits with `exit` and these registers.
    pub fn new(exit: Exit, registers: &Registers, length: Option<u64>) -> Self {
        let expected = exits::expected(&exit, registers);
        Self { exit, expected, registers: registers.clone(), length }
    }

    /// The delivery of an event was cut short.
    pub fn was_cut_short(&self) -> bool {
        self.registers.interrupted.is_some()
    }

    /// Where the guest was.
    fn describe(&self) -> String {
        let Registers { rip, rflags, control, cpl, interrupted, next_rip, .. } = &self.registers;
        format!(
            "{:x?} at {rip:#x}, CPL {cpl}, RFLAGS {rflags:#x}, {control:x?}, next {next_rip:x?}, \
             during {interrupted:x?}",
            self.exit
        )
    }

    /// Looks at the next entry, which delivers `event`.
    pub fn check(&self, registers: &Registers, event: Option<Event>) {
        if registers.resets != self.registers.resets {
            // INIT: nothing is as it was.
            return;
        }
        assert_ne!(Rule::of(&self.exit), Rule::Ends, "entered behind {}", self.describe());
        if Rule::of(&self.exit) != Rule::Emulates {
            let raised = self.check_event(event);
            self.check_registers(registers, raised);
        }
        if state::is_legal(&self.registers) {
            assert!(state::is_legal(registers), "reserved bits behind {}", self.describe());
        }
    }

    /// An event that was cut short comes again once, or combined with what the handler raises.
    /// Tells that exception.
    fn check_event(&self, event: Option<Event>) -> Option<u8> {
        let raised = match (self.registers.interrupted, event) {
            (Some(before), Some(after)) if self.is_same(before, after) => None,
            (Some(before), None) => panic!("{before:x?} is lost by {}", self.describe()),
            (before, Some(Event::Exception(exception))) => {
                self.check_pair(before, exception);
                Some(exception.vector.0)
            }
            (Some(before), Some(other)) => {
                panic!("{other:x?} came before {before:x?}, {}", self.describe())
            }
            (None, Some(Event::SoftwareInterrupt { .. })) => {
                panic!("{event:x?} from nowhere, {}", self.describe())
            }
            (None, Some(Event::Interrupt(_) | Event::Nmi) | None) => None,
        };
        self.check_raised(raised, event);
        raised
    }

    /// Equal, but that real mode, which the exit may have led to, has no error codes.
    fn is_same(&self, before: Event, after: Event) -> bool {
        match (before, after) {
            (Event::Exception(before), Event::Exception(after)) if self.may_be_real_mode() => {
                after == before || after == Exception { error_code: None, ..before }
            }
            (before, after) => before == after,
        }
    }

    fn may_be_real_mode(&self) -> bool {
        self.registers.control.cr0 & cr0::PE == 0 || matches!(self.exit, Exit::ControlRegister(_))
    }

    /// `exception` can be what came of another during the delivery of `before`.
    fn check_pair(&self, before: Option<Event>, exception: Exception) {
        let Some(Event::Exception(first)) = before else { return };
        let (first, vector) = (first.vector.0, exception.vector.0);
        let double = vector == DOUBLE_FAULT
            && (0..32).any(|second| pair(first, second) == Pair::DoubleFault);
        let fits = double || pair(first, vector) == Pair::Second;
        assert!(fits, "{vector} of {first} and {}", self.describe());
    }

    fn check_raised(&self, raised: Option<u8>, event: Option<Event>) {
        let steps = self.registers.rflags & rflags::TF != 0;
        let interrupted = self.registers.interrupted;
        let fits = match self.expected {
            Expected::Anything => true,
            Expected::NoException => raised.is_none() || steps && raised == Some(DEBUG),
            // Of two exceptions during delivery the pair was looked at.
            _ if matches!(interrupted, Some(Event::Exception(_))) => true,
            Expected::Exception(vector) => raised == Some(vector),
            Expected::This(exception) => {
                event.is_some_and(|event| self.is_same(Event::Exception(exception), event))
            }
        };
        // What steps while an exception was cut short may make another of both.
        let combined = steps && interrupted.is_some();
        assert!(
            fits || combined,
            "{event:x?} in place of {:x?}, {}",
            self.expected,
            self.describe()
        );
    }

    /// The instruction was skipped, or nothing has changed.
    fn check_registers(&self, registers: &Registers, raised: Option<u8>) {
        let told = self
            .registers
            .next_rip
            .or_else(|| self.length.map(|length| self.address_after(length)));
        let stays = Rule::of(&self.exit) == Rule::Stays;
        let steps = self.registers.rflags & rflags::TF != 0;
        // A double fault stands for what was raised.
        let faulted = raised.is_some() && !(steps && matches!(raised, Some(DEBUG | DOUBLE_FAULT)));
        if stays || faulted && told.is_some() {
            assert!(self.is_unchanged(registers), "changed by {}", self.describe());
        } else if !faulted {
            let advanced = match told {
                Some(next) => registers.rip == next,
                None => (1..=15).any(|length| registers.rip == self.address_after(length)),
            };
            // Where the exception that was cut short came again by itself, it may have been raised.
            let may_fault = self.registers.interrupted.is_some() || raised.is_some();
            let stayed = may_fault && registers.rip == self.registers.rip;
            assert!(advanced || stayed, "at {:#x} behind {}", registers.rip, self.describe());
        }
    }

    fn address_after(&self, length: u64) -> u64 {
        let next = self.registers.rip.wrapping_add(length);
        if state::is_64_bit_code(&self.registers) { next } else { next & 0xFFFF_FFFF }
    }

    /// All that instructions can see is as it was.
    fn is_unchanged(&self, now: &Registers) -> bool {
        let was = &self.registers;
        was.gprs == now.gprs
            && was.rip == now.rip
            && was.rflags == now.rflags
            && was.segments == now.segments
            && (was.gdtr, was.idtr) == (now.gdtr, now.idtr)
            && was.control == now.control
            && was.cpl == now.cpl
            && was.dr7 == now.dr7
            && was.breakpoints == now.breakpoints
            && was.msrs == now.msrs
            && (was.xcr0, was.tsc_aux, was.tsc_offset) == (now.xcr0, now.tsc_aux, now.tsc_offset)
    }
}

/// Interrupts that were sent to a vCPU and those that it got.
pub struct Account {
    sent: [u32; 256],
    got: [u32; 256],
    /// Sent, and none of the kind delivered since.
    owed: [bool; 256],
}

/// The number under which NMIs are counted.
pub const NMI: u8 = 2;

impl Default for Account {
    fn default() -> Self {
        Self { sent: [0; 256], got: [0; 256], owed: [false; 256] }
    }
}

impl Account {
    /// An interrupt was sent; those of one vector that are not delivered yet count as one.
    pub fn send(&mut self, vector: u8) {
        self.sent[usize::from(vector)] += 1;
        self.owed[usize::from(vector)] = true;
    }

    /// An interrupt was delivered, and not because its delivery had been cut short.
    pub fn get(&mut self, vector: u8) {
        let vector = usize::from(vector);
        self.got[vector] += 1;
        self.owed[vector] = false;
        assert!(self.got[vector] <= self.sent[vector], "interrupt {vector:#x} came twice");
    }

    /// Those that have not come.
    pub fn missing(&self) -> Vec<u8> {
        (0..=u8::MAX).filter(|vector| self.owed[usize::from(*vector)]).collect()
    }
}
