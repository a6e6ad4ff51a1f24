// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks that are read.

use core::ptr;

use super::{Elapsed, Rate};
use crate::rt::apic::{self, CURRENT_COUNT, DIVIDE, INITIAL_COUNT, LVT_TIMER, MASKED};
use crate::rt::cell::Fixed;
use crate::rt::report::Report;
use crate::rt::{acpi, cpu};

/// Readings of which the least disturbed is taken.
const READINGS: u32 = 20;
const FEMTOSECONDS: u64 = 1_000_000_000_000_000;

/// Where a hypervisor tells the frequencies of the time-stamp counter and the APIC bus in kHz.
const FREQUENCIES: u32 = 0x4000_0010;
/// KVM's interface, where there is another at the usual place.
const KVM: u32 = 0x4000_0100;
const KVM_CLOCK: u32 = 1 << 3;
const MSR_KVM_SYSTEM_TIME: u32 = 0x4B56_4D01;

/// Field `X_PM_TMR_BLK`'s older form, and the flag that the timer has 32 bits (ACPI 6.5, 5.2.9).
const FADT_PM_TIMER: u32 = 76;
const FADT_FLAGS: u32 = 112;
const TMR_VAL_EXT: u32 = 1 << 8;

/// Divide by 128.
const DIVIDE_BY_128: u32 = 0b1010;

/// `pvclock_vcpu_time_info` (Linux, `arch/x86/include/asm/pvclock-abi.h`).
#[repr(C)]
struct TimeInfo {
    version: u32,
    padding: u32,
    tsc_timestamp: u64,
    system_time: u64,
    multiplier: u32,
    shift: i8,
    flags: u8,
}

const NO_TIME: TimeInfo = TimeInfo {
    version: 0,
    padding: 0,
    tsc_timestamp: 0,
    system_time: 0,
    multiplier: 0,
    shift: 0,
    flags: 0,
};

const _: () = assert!(size_of::<TimeInfo>() == 32);

static TIME_INFO: Fixed<TimeInfo> = Fixed::new(NO_TIME);

/// Where a counter is read.
#[derive(Clone, Copy)]
enum Place {
    /// RDTSC.
    Tsc,
    /// A port of 32 bits.
    Port(u16),
    /// A register of 64 bits in memory.
    Memory(u64),
    /// The local APIC's timer, which counts down.
    ApicTimer,
    /// The page that KVM defined.
    KvmClock,
}

/// A counter and what it has counted.
pub struct Counter {
    name: &'static str,
    rate: Rate,
    mask: u64,
    place: Place,
    last: u64,
    total: u64,
    started: u64,
}

/// What the machine has of them.
pub fn all(report: &Report) -> [Option<Counter>; 5] {
    let found =
        [("tsc", tsc()), ("kvmclock", kvm_clock()), ("hpet", hpet()), ("acpi_pm", pm_timer())];
    let [tsc, kvm_clock, hpet, pm_timer] = found.map(|(name, counter)| {
        if counter.is_none() {
            report.skip(name, "the machine does not have it or does not tell its rate");
        }
        counter
    });
    let apic_timer = apic_timer();
    if apic_timer.is_none() {
        report.skip("lapic", "the machine does not tell its rate");
    }
    [tsc, kvm_clock, hpet, pm_timer, apic_timer]
}

/// Frequencies in kHz that a hypervisor tells.
pub fn frequencies() -> Option<(u64, u64)> {
    let under_hypervisor = cpu::cpuid(1, 0)[2] >> 31 == 1;
    if !under_hypervisor || cpu::cpuid(0x4000_0000, 0)[0] < FREQUENCIES {
        return None;
    }
    let [tsc, bus, ..] = cpu::cpuid(FREQUENCIES, 0);
    Some((tsc.into(), bus.into()))
}

fn tsc() -> Option<Counter> {
    let (khz, _) = frequencies()?;
    Some(Counter::new("tsc", Rate::hertz(khz * 1000), u64::MAX, Place::Tsc))
}

fn kvm_clock() -> Option<Counter> {
    let signature = [*b"KVMK", *b"VMKV", *b"M\0\0\0"].map(u32::from_le_bytes);
    let [_, b, c, d] = cpu::cpuid(KVM, 0);
    if [b, c, d] != signature || cpu::cpuid(KVM + 1, 0)[0] & KVM_CLOCK == 0 {
        return None;
    }
    // SAFETY: the VMM writes a `TimeInfo` there, at once; nothing refers to it.
    unsafe { cpu::wrmsr(MSR_KVM_SYSTEM_TIME, TIME_INFO.address() | 1) };
    Some(Counter::new("kvmclock", Rate::hertz(1_000_000_000), u64::MAX, Place::KvmClock))
}

fn hpet() -> Option<Counter> {
    const ENABLE: u64 = 1;
    let base = acpi::table(b"HPET").and_then(|table| table.u64(44))?;
    // SAFETY: the ACPI table says that the registers are there; memory is identity-mapped.
    let (period, wide) = unsafe {
        ptr::write_volatile((base + 0x10) as *mut u64, ENABLE);
        let capabilities = ptr::read_volatile(base as *const u64);
        (capabilities >> 32, capabilities >> 13 & 1 == 1)
    };
    let mask = if wide { u64::MAX } else { u32::MAX.into() };
    let rate = Rate { ticks: FEMTOSECONDS, seconds: period };
    Some(Counter::new("hpet", rate, mask, Place::Memory(base + 0xF0)))
}

fn pm_timer() -> Option<Counter> {
    let fadt = acpi::table(b"FACP")?;
    let port = u16::try_from(fadt.u32(FADT_PM_TIMER)?).ok().filter(|&port| port != 0)?;
    let wide = fadt.u32(FADT_FLAGS)? & TMR_VAL_EXT != 0;
    let mask = if wide { u32::MAX.into() } else { 0xFF_FFFF };
    Some(Counter::new("acpi_pm", Rate::hertz(3_579_545), mask, Place::Port(port)))
}

fn apic_timer() -> Option<Counter> {
    let (_, bus_khz) = frequencies()?;
    apic::write(DIVIDE, DIVIDE_BY_128);
    apic::write(LVT_TIMER, MASKED);
    apic::write(INITIAL_COUNT, u32::MAX);
    let rate = Rate { ticks: bus_khz * 1000, seconds: 128 };
    Some(Counter::new("lapic", rate, u32::MAX.into(), Place::ApicTimer))
}

impl Place {
    fn read(self) -> u64 {
        match self {
            Self::Tsc => cpu::tsc(),
            Self::Port(port) => cpu::in32(port).into(),
            // SAFETY: the constructors take it from ACPI tables; reading does no harm.
            Self::Memory(address) => unsafe { ptr::read_volatile(address as *const u64) },
            Self::ApicTimer => (!apic::read(CURRENT_COUNT)).into(),
            Self::KvmClock => kvm_time(),
        }
    }
}

/// Nanoseconds, as the page says to make them of the time-stamp counter.
fn kvm_time() -> u64 {
    // SAFETY: the page is always valid memory; it changes only when the MSR is written.
    let info = unsafe { ptr::read_volatile(TIME_INFO.get()) };
    let ticks = u128::from(cpu::tsc().wrapping_sub(info.tsc_timestamp));
    let shift = u32::from(info.shift.unsigned_abs());
    let shifted = if info.shift < 0 { ticks >> shift } else { ticks << shift };
    info.system_time.wrapping_add(((shifted * u128::from(info.multiplier)) >> 32) as u64)
}

impl Counter {
    const fn new(name: &'static str, rate: Rate, mask: u64, place: Place) -> Self {
        Self { name, rate, mask, place, last: 0, total: 0, started: 0 }
    }

    /// Its name, that of Linux' clock source if there is one.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Begins to count.
    pub fn start(&mut self) {
        (self.last, self.started) = self.sample();
        self.total = 0;
    }

    /// Adds what was counted since the last time; to be called before the counter comes round.
    pub fn advance(&mut self) {
        let now = self.place.read();
        self.add(now);
    }

    /// What passed since the start.
    pub fn elapsed(&mut self) -> Elapsed {
        let (now, tsc) = self.sample();
        self.add(now);
        Elapsed {
            nanoseconds: self.rate.nanoseconds(self.total),
            tsc: tsc.wrapping_sub(self.started),
        }
    }

    fn add(&mut self, now: u64) {
        self.total += now.wrapping_sub(self.last) & self.mask;
        self.last = now;
    }

    /// The counter, and the time-stamp counter at that moment: of several readings the one that
    /// took the shortest time.
    fn sample(&self) -> (u64, u64) {
        let (mut best, mut shortest) = ((0, 0), u64::MAX);
        for _ in 0..READINGS {
            let before = cpu::tsc();
            let value = self.place.read();
            let took = cpu::tsc().wrapping_sub(before);
            if took < shortest {
                shortest = took;
                best = (value, before.wrapping_add(took / 2));
            }
        }
        best
    }
}
