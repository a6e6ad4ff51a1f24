// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the interrupt vectors are used for. 0x20 to 0x2F belong to the silenced 8259s.

/// Debug exception.
pub(crate) const DEBUG: u8 = 1;
/// Non-maskable interrupt.
pub(crate) const NMI: u8 = 2;
/// First vector for devices.
pub(crate) const FIRST_DEVICE: u8 = 0x30;
/// Last vector for devices.
pub(crate) const LAST_DEVICE: u8 = 0xEF;
/// Makes a CPU leave a guest or its wait, and nothing else.
pub(crate) const KICK: u8 = 0xF0;
/// The local APIC's timer.
pub(crate) const TIMER: u8 = 0xF1;
/// The local APIC found an error.
pub(crate) const APIC_ERROR: u8 = 0xFE;
/// An interrupt vanished before it was delivered.
pub(crate) const SPURIOUS: u8 = 0xFF;
