// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending the machine.

use core::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use x86::io::{outb, outl};

use crate::{console, cpu::interrupt_flag, logger};

/// Port at which Bochs takes the text "Shutdown".
const BOCHS_SHUTDOWN_PORT: u16 = 0x8900;

/// How the machine is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MachineExit {
    /// I/O port of QEMU's `isa-debug-exit` device; 0 for none.
    pub debug_exit_port: u16,
    /// Code with which a panic ends the machine.
    pub panic_code: u8,
}

static DEBUG_EXIT_PORT: AtomicU16 = AtomicU16::new(0);
static PANIC_CODE: AtomicU8 = AtomicU8::new(1);

pub(crate) fn configure(exit: MachineExit) {
    DEBUG_EXIT_PORT.store(exit.debug_exit_port, Ordering::Relaxed);
    PANIC_CODE.store(exit.panic_code, Ordering::Relaxed);
}

pub(crate) fn panic_code() -> u8 {
    PANIC_CODE.load(Ordering::Relaxed)
}

/// Ends the machine with `code`, as an emulator's exit status where there is one: QEMU's is
/// `code << 1 | 1`. A machine without such a device halts. The log's last line is `@exit CODE`,
/// in decimal, for programs that cannot see a status.
pub fn exit(code: u8) -> ! {
    interrupt_flag::clear();
    logger::write_raw(format_args!("@exit {code}"));
    console::flush();
    logger::flush();
    let port = DEBUG_EXIT_PORT.load(Ordering::Relaxed);
    // SAFETY: the ports end an emulated machine, or are not connected.
    unsafe {
        if port != 0 {
            outl(port, u32::from(code));
        }
        for byte in *b"Shutdown" {
            outb(BOCHS_SHUTDOWN_PORT, byte);
        }
    }
    halt()
}

/// Stops this CPU for good.
pub(crate) fn halt() -> ! {
    loop {
        interrupt_flag::clear();
        // SAFETY: with interrupts off the CPU stays here; an NMI or SMI returns to the loop.
        unsafe { x86::halt() };
    }
}
