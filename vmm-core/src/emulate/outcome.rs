// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the emulation of an instruction ended.

use core::fmt;

use crate::Exit;
use crate::address::GuestPhysAddr;
use crate::paging::walk::AccessKind;
use crate::state::Exception;

/// Longest possible instruction in bytes (AMD APM vol. 3, 1.1).
pub const MAX_INSTRUCTION_LENGTH: usize = 15;

/// The bytes of an instruction, as far as they are known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InstructionBytes {
    pub(super) bytes: [u8; MAX_INSTRUCTION_LENGTH],
    pub(super) length: u8,
}

impl InstructionBytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }
}

impl fmt::Debug for InstructionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for InstructionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.as_slice().iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

/// How the emulation of one instruction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// The instruction is complete and RIP is behind it (or at its target).
    Done {
        /// RFLAGS.TF was set: deliver #DB (with DR6.BS) now.
        debug_trap: bool,
    },
    /// RIP is still at the instruction and it should run again, after pending interrupts were
    /// taken: a repeated string instruction after some iterations, or a locked access that
    /// kept losing against another CPU.
    Repeat {
        /// An iteration completed with RFLAGS.TF set: deliver #DB (with DR6.BS) now.
        debug_trap: bool,
    },
    /// The instruction faults: deliver this exception. Nothing has changed but the completed
    /// iterations of a repeated string instruction. Without an error code in real mode.
    Fault(Exception),
    /// The instruction concerns more than registers and memory: it is to be answered as this
    /// exit. Privilege and operands were checked, and nothing has changed, but that RFLAGS.RF is
    /// what a task that is left through a gate saves.
    Intercepted {
        /// What the hardware would report.
        exit: Exit,
        /// RIP of the next instruction.
        next_rip: u64,
    },
    /// The emulator does not know this instruction (for example an SSE move).
    Unsupported(InstructionBytes),
    /// The guest uses a paging mode that no processor model here offers.
    UnsupportedPaging,
    /// The bus refused an access. Part of an operand that crosses pages may have been written.
    BusError {
        /// Where.
        address: GuestPhysAddr,
        /// What was tried.
        access: AccessKind,
    },
}

/// Why an instruction stops before its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    Fault(Exception),
    Intercepted(Exit),
    Unsupported,
    UnsupportedPaging,
    Bus { address: GuestPhysAddr, access: AccessKind },
    Contended,
}

impl From<Exception> for Stop {
    fn from(exception: Exception) -> Self {
        Self::Fault(exception)
    }
}

/// Result of a step of an instruction.
pub(super) type Step<T> = Result<T, Stop>;

impl Stop {
    /// The outcome to report. Exceptions push no error code in real mode.
    pub fn outcome(self, real_mode: bool, bytes: InstructionBytes, next_rip: u64) -> Outcome {
        match self {
            Self::Fault(exception) if real_mode => {
                Outcome::Fault(Exception { error_code: None, ..exception })
            }
            Self::Fault(exception) => Outcome::Fault(exception),
            Self::Intercepted(exit) => Outcome::Intercepted { exit, next_rip },
            Self::Unsupported => Outcome::Unsupported(bytes),
            Self::UnsupportedPaging => Outcome::UnsupportedPaging,
            Self::Bus { address, access } => Outcome::BusError { address, access },
            Self::Contended => Outcome::Repeat { debug_trap: false },
        }
    }
}
