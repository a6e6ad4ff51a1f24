// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pair of 8259A interrupt controllers.

use super::cpu::{in8, out8};

const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xA0;

/// Vector of input 0 of the master; the slave's follow.
pub const BASE: u64 = 0x20;

/// Initializes both with every input masked.
pub fn init() {
    out8(MASTER, 0x11);
    out8(SLAVE, 0x11);
    out8(MASTER + 1, BASE as u8);
    out8(SLAVE + 1, BASE as u8 + 8);
    out8(MASTER + 1, 0x04);
    out8(SLAVE + 1, 0x02);
    out8(MASTER + 1, 0x01);
    out8(SLAVE + 1, 0x01);
    set_mask(0xFFFF);
}

/// Sets the masks; bit n masks input n.
pub fn set_mask(mask: u16) {
    out8(MASTER + 1, mask as u8);
    out8(SLAVE + 1, (mask >> 8) as u8);
}

/// Reads the masks.
pub fn mask() -> u16 {
    u16::from(in8(SLAVE + 1)) << 8 | u16::from(in8(MASTER + 1))
}

/// Requests that wait: bit n for input n.
pub fn requests() -> u16 {
    out8(MASTER, 0x0A);
    out8(SLAVE, 0x0A);
    u16::from(in8(SLAVE)) << 8 | u16::from(in8(MASTER))
}

/// Ends the interrupt of an input.
pub fn end_of_interrupt(input: u8) {
    if input >= 8 {
        out8(SLAVE, 0x20);
    }
    out8(MASTER, 0x20);
}

/// Acknowledges the master's request of highest priority by a poll; bit 7 says if there was one.
pub fn poll() -> u8 {
    out8(MASTER, 0x0C);
    in8(MASTER)
}
