// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of the guest.

use core::panic::PanicInfo;

use super::cpu;

/// Port of the exit device; a 32-bit write ends the VM.
pub const EXIT_PORT: u16 = 0xF4;

/// Exit value of a guest that came to an unexpected end.
pub const UNEXPECTED: u32 = 0x7F;

/// Ends the VM with an exit value: 0 for success, else the number of failures.
pub fn exit(value: u32) -> ! {
    cpu::out32(EXIT_PORT, value);
    // Without an exit device there is nothing left to do but to stop.
    loop {
        cpu::halt_forever();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("not ok panic: {info}");
    exit(UNEXPECTED)
}
