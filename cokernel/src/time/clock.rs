// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time-stamp counter as a clock.

use core::sync::atomic::{AtomicU64, Ordering};

use super::scale::scale;

static ENTRY_TSC: AtomicU64 = AtomicU64::new(0);
static TSC_HZ: AtomicU64 = AtomicU64::new(0);

/// The time-stamp counter now.
#[inline]
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter; the fence keeps the read behind earlier loads, such as that of
    // a flag which another CPU set at a certain time. The intrinsic for it is one of SSE2, and
    // would be called as a function here, where that is not in use.
    unsafe {
        core::arch::asm!(
            "lfence",
            "rdtsc",
            out("eax") low,
            out("edx") high,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Frequency of the time-stamp counter in hertz; 0 until it is known, early in the boot.
pub fn tsc_hz() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}

/// The time-stamp counter when the boot loader entered the image.
pub fn entry_tsc() -> u64 {
    ENTRY_TSC.load(Ordering::Relaxed)
}

/// Microseconds since the boot loader entered the image; 0 until the frequency is known.
pub fn microseconds_since_entry() -> u64 {
    scale(tsc().saturating_sub(entry_tsc()), 1_000_000, tsc_hz())
}

/// Spins for at least this long.
pub fn spin_microseconds(microseconds: u64) {
    let end = tsc().saturating_add(scale(microseconds, tsc_hz(), 1_000_000));
    while tsc() < end {
        core::hint::spin_loop();
    }
}

pub(crate) fn set_entry_tsc(tsc: u64) {
    ENTRY_TSC.store(tsc, Ordering::Relaxed);
}

pub(crate) fn set_tsc_hz(hz: u64) {
    TSC_HZ.store(hz, Ordering::Relaxed);
}
