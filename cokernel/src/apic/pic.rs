// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pair of Intel 8259A interrupt controllers, which is only silenced.

use x86::io::outb;

/// First of the 16 vectors to which spurious interrupts of the pair go.
const BASE_VECTOR: u8 = 0x20;

/// Moves the pair off the exception vectors and masks all its inputs.
pub(crate) fn silence() {
    // SAFETY: the ports are the 8259s' or unconnected; after this they deliver nothing but
    // spurious interrupts, whose vectors are ignored.
    unsafe {
        for (command, data, base, cascade) in
            [(0x20, 0x21, BASE_VECTOR, 4), (0xA0, 0xA1, BASE_VECTOR + 8, 2)]
        {
            outb(command, 0x11);
            outb(data, base);
            outb(data, cascade);
            outb(data, 1);
            outb(data, 0xFF);
        }
    }
}
