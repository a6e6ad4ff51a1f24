// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding out how fast the TSC and the local APIC's timer run.

use raw_cpuid::CpuId;
use x86::{
    cpuid::cpuid,
    io::{inb, inl, outb},
};

use super::{
    clock::tsc,
    scale::{contradicts, plausible_tsc_hz, scale},
};
use crate::{
    acpi::{Fadt, TimerBlock},
    apic::local,
    memory::map_device,
};

/// ACPI 6.5, section 4.8.2.1.
const PM_TIMER_HZ: u64 = 3_579_545;
const PIT_HZ: u64 = 1_193_182;
/// How long to measure.
const WINDOW_MICROSECONDS: u64 = 10_000;
/// Readings of which the least disturbed is taken.
const READINGS: u32 = 5;
/// Looks at a reference clock before it is taken to stand still.
const STUCK_READS: u32 = 10_000_000;

/// The result, and where it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TscFrequency {
    pub(crate) hz: u64,
    pub(crate) source: &'static str,
}

/// Frequency of the TSC: from CPUID, which is exact, unless measuring contradicts it.
pub(crate) fn tsc_frequency(fadt: Option<&Fadt>) -> Option<TscFrequency> {
    let measured = fadt
        .and_then(PmTimer::new)
        .and_then(|timer| timer.measure())
        .or_else(|| measure_with_pit().map(|hz| TscFrequency { hz, source: "PIT" }))
        .filter(|found| plausible_tsc_hz(found.hz).is_some());
    choose(from_cpuid(), measured)
}

/// An emulator may tell the frequency of the CPU that it stands for, and run at another: Bochs
/// does.
fn choose(told: Option<TscFrequency>, measured: Option<TscFrequency>) -> Option<TscFrequency> {
    match (told, measured) {
        (Some(told), Some(measured)) if contradicts(measured.hz, told.hz) => Some(measured),
        (told, measured) => told.or(measured),
    }
}

fn from_cpuid() -> Option<TscFrequency> {
    let leaves = CpuId::new();
    let crystal = leaves.get_tsc_info().and_then(|info| info.tsc_frequency());
    if let Some(hz) = crystal.and_then(plausible_tsc_hz) {
        return Some(TscFrequency { hz, source: "CPUID 0x15" });
    }
    // Base frequency, where leaf 0x15 has the ratio but not the crystal (Intel SDM volume 3,
    // section 19.7.3).
    let ratio_known = leaves.get_tsc_info().is_some_and(|i| i.numerator() != 0);
    let base = leaves.get_processor_frequency_info().map(|f| f.processor_base_frequency());
    let base = base.filter(|_| ratio_known).map(|mhz| u64::from(mhz) * 1_000_000);
    if let Some(hz) = base.and_then(plausible_tsc_hz) {
        return Some(TscFrequency { hz, source: "CPUID 0x16" });
    }
    let under_hypervisor = leaves.get_feature_info().is_some_and(|f| f.has_hypervisor());
    if under_hypervisor && cpuid!(0x4000_0000).eax >= 0x4000_0010 {
        let hz = u64::from(cpuid!(0x4000_0010).eax) * 1000;
        return plausible_tsc_hz(hz).map(|hz| TscFrequency { hz, source: "CPUID 0x40000010" });
    }
    None
}

/// The ACPI power management timer.
struct PmTimer {
    register: Register,
    mask: u32,
}

enum Register {
    Port(u16),
    Memory(*const u32),
}

impl PmTimer {
    fn new(fadt: &Fadt) -> Option<Self> {
        let register = match fadt.pm_timer? {
            TimerBlock::Port(port) => Register::Port(port),
            TimerBlock::Memory(address) => {
                Register::Memory(map_device(address, 4).ok()?.as_ptr().cast())
            }
        };
        // The lower 24 bits do for a window of milliseconds and are always there.
        Some(Self { register, mask: if fadt.pm_timer_32_bit { u32::MAX } else { 0xFF_FFFF } })
    }

    fn read(&self) -> u32 {
        let value = match self.register {
            // SAFETY: the FADT names the port; reading has no side effect.
            Register::Port(port) => unsafe { inl(port) },
            // SAFETY: `new` mapped the register.
            Register::Memory(register) => unsafe { register.read_volatile() },
        };
        value & self.mask
    }

    /// A value of the timer and the TSC when it changed to that: of several readings the one
    /// that took the shortest time, for an emulator may be interrupted in between. `None` if
    /// the timer stands still.
    fn sample(&self) -> Option<(u32, u64)> {
        let (mut best, mut best_width) = ((0, 0), u64::MAX);
        for _ in 0..READINGS {
            let old = self.read();
            let (value, before, after) = (0..STUCK_READS).find_map(|_| {
                let before = tsc();
                let value = self.read();
                (value != old).then(|| (value, before, tsc()))
            })?;
            if after - before < best_width {
                best_width = after - before;
                best = (value, before + best_width / 2);
            }
        }
        Some(best)
    }

    fn measure(&self) -> Option<TscFrequency> {
        // The first sample warms caches, and an emulator's translations.
        self.sample()?;
        let (start_pm, start_tsc) = self.sample()?;
        let window = scale(WINDOW_MICROSECONDS, PM_TIMER_HZ, 1_000_000) as u32;
        let (mut end_pm, mut end_tsc) = (start_pm, start_tsc);
        while self.elapsed(start_pm, end_pm) < window {
            (end_pm, end_tsc) = self.sample()?;
        }
        let pm_ticks = u64::from(self.elapsed(start_pm, end_pm));
        let hz = scale(end_tsc.checked_sub(start_tsc)?, PM_TIMER_HZ, pm_ticks);
        Some(TscFrequency { hz, source: "PM timer" })
    }

    fn elapsed(&self, start: u32, end: u32) -> u32 {
        end.wrapping_sub(start) & self.mask
    }
}

/// Measures with channel 2 of the PIT, gated by port 0x61 (Intel 8254 data sheet).
fn measure_with_pit() -> Option<u64> {
    let count = scale(WINDOW_MICROSECONDS, PIT_HZ, 1_000_000);
    let [low, high, ..] = count.to_le_bytes();
    // SAFETY: channel 2 drives the speaker only, which stays off.
    unsafe {
        outb(0x61, inb(0x61) & !3 | 1);
        // Channel 2, both bytes, mode 0: the output rises at the end of the count.
        outb(0x43, 0xB0);
        outb(0x42, low);
        outb(0x42, high);
        let start = tsc();
        let ended = (0..STUCK_READS).any(|_| inb(0x61) & 1 << 5 != 0);
        let ticks = tsc() - start;
        outb(0x61, inb(0x61) & !1);
        ended.then(|| scale(ticks, PIT_HZ, count))
    }
}

/// Measures the local APIC's timer, which counts down from its maximum, against the TSC.
pub(crate) fn apic_timer_frequency(tsc_hz: u64) -> u64 {
    let sample = || {
        let before = tsc();
        let count = local::timer_count();
        (count, before + (tsc() - before) / 2)
    };
    local::start_timer(u32::MAX);
    let (start_count, start_tsc) = sample();
    let end = start_tsc + scale(WINDOW_MICROSECONDS, tsc_hz, 1_000_000);
    while tsc() < end {
        core::hint::spin_loop();
    }
    let (end_count, end_tsc) = sample();
    local::stop_timer();
    scale(u64::from(start_count.saturating_sub(end_count)), tsc_hz, end_tsc - start_tsc)
}
