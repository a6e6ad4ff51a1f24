// SPDX-License-Identifier: MIT OR Apache-2.0
//! Emulation of single guest instructions.
//!
//! The hardware leaves some instructions to the VMM: accesses to memory where a device
//! answers, string port I/O, and on CPUs that cannot enter a guest in real mode all that the
//! guest executes there. [`emulate`] completes one instruction: it fetches it at CS:RIP
//! through the guest's page tables (or takes the bytes the hardware reports), decodes it for
//! the mode the CPU is in, and executes it against a [`GuestBus`] that sends accesses to RAM
//! or to devices. [`deliver`] begins the handler of an interrupt or exception. [`switch_task`]
//! goes from one task to another.
//!
//! Faults are precise: segment, canonical, paging and alignment checks of all operands come
//! before the first effect, so that an instruction either completes or changes nothing.
//! Repeated string instructions stop at a bound and report [`Outcome::Repeat`], with RCX, RSI
//! and RDI exactly where an interrupt would find them. Locked instructions are atomic in RAM
//! where they are aligned.
//!
//! What needs the policy of the VMM (CPUID, MSRs, control registers, HLT and the like) is
//! checked and handed back as the exit that hardware would make of it, and so is what switches
//! tasks. What needs state beyond [`EmulatorCpu`] (SSE, x87) or changes the privilege level is
//! [`Outcome::Unsupported`]. Breakpoints of the guest's debug registers are not checked.
//!
//! [`emulate_move`] does the same for the commonest accesses to devices, which it recognises
//! without the decoder.
//!
//! There is one file per family of instructions; `dispatch.rs` is the table of them all.

mod arith;
mod bits;
mod branch;
mod bus;
mod condition;
mod context;
mod convert;
mod cpu;
mod decimal;
mod descriptor;
mod device_move;
mod dispatch;
mod event;
mod exchange;
mod far;
mod fetch;
mod flag_control;
mod flags;
mod frame;
mod memory;
mod multiply;
mod operand;
mod outcome;
mod port;
mod register;
mod segment;
mod segment_load;
mod shift;
mod stack;
mod string;
mod system;
mod task;
mod transfer;
mod width;

#[cfg(any(test, feature = "test-support"))]
#[doc(hidden)]
pub(crate) mod tests;

pub use bus::{Exchange, GuestBus};
pub use cpu::{EmulatorCpu, address_space};
pub use device_move::{SimpleMove, TriedAccess, emulate_move};
pub use fetch::length_of_common;
pub use outcome::{InstructionBytes, MAX_INSTRUCTION_LENGTH, Outcome};
pub use port::io_permission;
pub use task::{Departure, TaskSwitchEnd, switch_task};

use context::Context;
use iced_x86::Instruction;
use outcome::{Step, Stop};

use crate::{Event, state::rflags};

/// Where execution goes after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flow {
    /// To the next instruction.
    Next,
    /// To this offset in CS.
    Jump(u64),
    /// To the same instruction again.
    Again {
        /// At least one iteration was made.
        iterated: bool,
    },
}

/// Executes the instruction at CS:RIP.
///
/// `bytes` are the instruction's bytes where the hardware reports them (AMD decode assists);
/// if they are not the whole instruction, it is fetched from memory.
pub fn emulate(
    cpu: &mut impl EmulatorCpu,
    bus: &mut impl GuestBus,
    bytes: Option<&[u8]>,
) -> Outcome {
    let mut context = Context::new(cpu, bus);
    context.run(bytes).unwrap_or_else(|stop| context.outcome_of(stop))
}

/// Delivers `event`: pushes what its handler returns to and goes there. RIP is that of the
/// instruction before which, or in place of which, the event comes.
///
/// A fault is one of the delivery, to be combined with the event. A task gate is
/// [`Outcome::Intercepted`]: the switch delivers the event. Delivery that changes the privilege
/// level or happens in long mode is [`Outcome::Unsupported`].
pub fn deliver(cpu: &mut impl EmulatorCpu, bus: &mut impl GuestBus, event: Event) -> Outcome {
    let mut context = Context::new(cpu, bus);
    match context.deliver(event) {
        Ok(target) => context.complete(target),
        Err(stop) => context.outcome_of(stop),
    }
}

/// Length in bytes of the instruction at CS:RIP, for hardware that does not report where the
/// next one begins. The instructions that exit most are recognised without a decoder.
///
/// # Errors
/// The outcome to report if the instruction cannot be fetched or is not one.
pub fn instruction_length(
    cpu: &mut impl EmulatorCpu,
    bus: &mut impl GuestBus,
    bytes: Option<&[u8]>,
) -> Result<usize, Outcome> {
    let mut context = Context::new(cpu, bus);
    context.instruction_length(bytes).map_err(|stop| context.outcome_of(stop))
}

/// Fetches and decodes the instruction at CS:RIP.
///
/// # Errors
/// The outcome to report if the instruction cannot be fetched or is not one.
pub fn decode(cpu: &mut impl EmulatorCpu, bus: &mut impl GuestBus) -> Result<Instruction, Outcome> {
    let mut context = Context::new(cpu, bus);
    context.fetch_and_decode(None).map_err(|stop| context.outcome_of(stop))?;
    Ok(context.instruction)
}

/// Builds the decoder's tables, which takes a moment and some heap on first use. Call it once
/// before guests run.
pub fn prepare() {
    let nop = [0x90];
    if let Ok(mut decoder) = iced_x86::Decoder::try_new(64, &nop, iced_x86::DecoderOptions::NONE) {
        let _ = decoder.decode();
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    fn run(&mut self, bytes: Option<&[u8]>) -> Step<Outcome> {
        self.fetch_and_decode(bytes)?;
        let next = self.next_rip();
        match self.execute()? {
            Flow::Next => Ok(self.complete(next)),
            Flow::Jump(target) => Ok(self.complete(target)),
            Flow::Again { iterated } => {
                self.cpu.set_rflags(self.flags);
                self.cpu.set_interrupt_shadow(None);
                Ok(Outcome::Repeat { debug_trap: iterated && self.debug_trap })
            }
        }
    }

    /// RF ends with the instruction it protected (AMD APM vol. 2, 13.1.3.1).
    fn complete(&mut self, rip: u64) -> Outcome {
        self.cpu.set_rip(rip);
        self.cpu.set_rflags(self.flags & !rflags::RF);
        self.cpu.set_interrupt_shadow(self.shadow);
        Outcome::Done { debug_trap: self.debug_trap }
    }

    fn outcome_of(&self, stop: Stop) -> Outcome {
        let mut bytes = self.bytes;
        // Unknown instructions are reported without the bytes fetched beyond them.
        if self.instruction.len() != 0 {
            bytes.length = bytes.length.min(self.instruction.len() as u8);
        }
        stop.outcome(!self.mode.protected, bytes, self.next_rip())
    }
}
