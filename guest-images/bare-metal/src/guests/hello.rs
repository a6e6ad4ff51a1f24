// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints one line and ends; made to take few instructions.

use crate::rt::console;

/// Prints the line.
pub fn run() -> u32 {
    console::write_bytes(b"hello from a guest\n");
    0
}
