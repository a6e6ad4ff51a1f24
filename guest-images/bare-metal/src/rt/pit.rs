// SPDX-License-Identifier: MIT OR Apache-2.0
//! The 8254 timer and what is measured with it.

use super::cpu::{self, in8, out8};

/// Input clock in Hz.
pub const FREQUENCY: u64 = 1_193_182;

const CHANNEL0: u16 = 0x40;
const CHANNEL2: u16 = 0x42;
const COMMAND: u16 = 0x43;
/// System control port B: gate and output of channel 2.
const PORT_B: u16 = 0x61;

fn load(channel: u16, count: u16) {
    let [low, high] = count.to_le_bytes();
    out8(channel, low);
    out8(channel, high);
}

/// Programs channel 0: mode 0 is one-shot, mode 2 periodic.
pub fn start_channel0(mode: u8, count: u16) {
    out8(COMMAND, 0x30 | mode << 1);
    load(CHANNEL0, count);
}

/// Stops channel 0, by a mode that waits for a count.
pub fn stop_channel0() {
    out8(COMMAND, 0x30);
}

/// Latches and reads the count of channel 0.
pub fn count_channel0() -> u16 {
    out8(COMMAND, 0x00);
    let low = in8(CHANNEL0);
    u16::from_le_bytes([low, in8(CHANNEL0)])
}

/// Sets the gate of channel 2; the speaker stays off.
pub fn set_gate2(open: bool) {
    let port_b = in8(PORT_B) & !0x03;
    out8(PORT_B, port_b | u8::from(open));
}

/// Output of channel 2.
pub fn output2() -> bool {
    in8(PORT_B) & 0x20 != 0
}

/// Loads channel 2 in mode 0: its output rises when the count has run out.
pub fn start_channel2(count: u16) {
    out8(COMMAND, 0xB0);
    load(CHANNEL2, count);
}

/// Latches and reads the count of channel 2.
pub fn count_channel2() -> u16 {
    out8(COMMAND, 0x80);
    let low = in8(CHANNEL2);
    u16::from_le_bytes([low, in8(CHANNEL2)])
}

/// Measures the time-stamp counter against channel 2, in Hz.
///
/// Takes the smallest of 16 measurements of 2 ms: what delays the loop only lengthens one.
pub fn tsc_frequency() -> u64 {
    const COUNT: u16 = (FREQUENCY / 500) as u16;
    let mut best = u64::MAX;
    for _ in 0..16 {
        set_gate2(false);
        start_channel2(COUNT);
        set_gate2(true);
        let start = cpu::tsc();
        while !output2() && cpu::tsc().wrapping_sub(start) < 1 << 34 {}
        best = best.min(cpu::tsc().wrapping_sub(start));
    }
    best.saturating_mul(500)
}

/// Waits 10 ms, polling channel 2.
pub fn wait_10_ms() {
    set_gate2(false);
    start_channel2((FREQUENCY / 100) as u16);
    set_gate2(true);
    while !output2() {
        core::hint::spin_loop();
    }
}
