// SPDX-License-Identifier: MIT OR Apache-2.0
//! The high precision event timers (IA-PC HPET specification 1.0a).

use core::ptr;

use super::{Clock, PATIENCE, level, pit as pit_tests};
use crate::rt::report::Report;
use crate::rt::{acpi, apic, cpu, interrupts, pit};

/// Registers.
const CAPABILITIES: u64 = 0x00;
const CONFIGURATION: u64 = 0x10;
const STATUS: u64 = 0x20;
const COUNTER: u64 = 0xF0;

const fn config(timer: u64) -> u64 {
    0x100 + 0x20 * timer
}

const fn comparator(timer: u64) -> u64 {
    0x108 + 0x20 * timer
}

/// General configuration.
const ENABLE: u64 = 1;
const LEGACY: u64 = 2;

/// Configuration of a timer.
const LEVEL: u64 = 1 << 1;
const INTERRUPT: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const SET_VALUE: u64 = 1 << 6;
const BITS_32: u64 = 1 << 8;
const ROUTE_SHIFT: u64 = 9;

const VECTOR: u64 = 0x46;
const PIT_VECTOR: u64 = 0x47;
/// I/O APIC input that the RTC's interrupt leads to, and comparator 1 in its place.
const RTC_INPUT: u32 = 8;

const FEMTOSECONDS: u64 = 1_000_000_000_000_000;

/// A timer block.
#[derive(Clone, Copy)]
struct Hpet {
    base: u64,
    hertz: u64,
}

impl Hpet {
    fn read(self, register: u64) -> u64 {
        // SAFETY: the ACPI table says that the registers are there; memory is identity-mapped.
        unsafe { ptr::read_volatile((self.base + register) as *const u64) }
    }

    fn write(self, register: u64, value: u64) {
        // SAFETY: as above; the handlers keep all registers.
        unsafe { ptr::write_volatile((self.base + register) as *mut u64, value) };
    }

    fn ticks(self, microseconds: u64) -> u64 {
        self.hertz / 1000 * microseconds / 1000
    }

    fn stop(self) {
        self.write(CONFIGURATION, 0);
        (0..3).for_each(|timer| self.write(config(timer), 0));
        self.write(STATUS, u64::MAX);
        self.write(COUNTER, 0);
    }
}

pub fn run(report: &mut Report, clock: Clock) {
    let base = acpi::table(b"HPET").and_then(|table| table.u64(44));
    let Some(base) = base else {
        report.skip("HPET", "there is no table of it");
        return;
    };
    let capabilities = Hpet { base, hertz: 0 }.read(CAPABILITIES);
    let period = capabilities >> 32;
    report.within("HPET period in fs", period, 100_000, 100_000_000);
    let id = acpi::table(b"HPET").and_then(|table| table.u32(36));
    report.equal("HPET table and register agree", Some(capabilities as u32), id);
    report.within("HPET has three timers", capabilities >> 8 & 0x1F, 2, 31);
    let hpet = Hpet { base, hertz: FEMTOSECONDS / period.max(1) };
    counter(report, clock, hpet);
    let input = (hpet.read(config(0)) >> 32).trailing_zeros();
    if input >= 24 {
        report.holds("HPET has a route", false, input);
        return;
    }
    pit::stop_channel0();
    interrupts::count(VECTOR);
    one_shot(report, clock, hpet, input);
    periodic(report, clock, hpet, input);
    level_triggered(report, clock, hpet, input);
    legacy(report, clock, hpet);
    hpet.stop();
    pit::stop_channel0();
}

fn counter(report: &mut Report, clock: Clock, hpet: Hpet) {
    hpet.stop();
    clock.pass(1000);
    report.equal("HPET stands still when disabled", hpet.read(COUNTER), 0);
    hpet.write(COUNTER, 0x1_2345_6789);
    report.equal("HPET counter has 64 bits", hpet.read(COUNTER), 0x1_2345_6789);
    hpet.write(CONFIGURATION, ENABLE);
    let (mut ticks, mut expected) = (0, 0);
    // Tried again when another task came between the two clocks.
    for _ in 0..20 {
        let (start, first) = (cpu::tsc(), hpet.read(COUNTER));
        clock.pass(10_000);
        let (last, end) = (hpet.read(COUNTER), cpu::tsc());
        ticks = last.wrapping_sub(first);
        expected = hpet.ticks(clock.microseconds(end.wrapping_sub(start)));
        if ticks.abs_diff(expected) < expected / 20 {
            break;
        }
    }
    report.within("HPET rate", ticks, expected * 9 / 10, expected * 11 / 10);
    hpet.stop();
}

fn one_shot(report: &mut Report, clock: Clock, hpet: Hpet, input: u32) {
    apic::route(input, VECTOR as u32);
    hpet.write(config(0), INTERRUPT | u64::from(input) << ROUTE_SHIFT);
    let route = hpet.read(config(0)) >> ROUTE_SHIFT & 0x1F;
    report.equal("HPET route reads back", route, input.into());
    hpet.write(comparator(0), hpet.ticks(2000));
    clock.pass_open(1000);
    report.equal("HPET is silent when disabled", interrupts::seen(VECTOR), 0);
    let start = cpu::tsc();
    hpet.write(CONFIGURATION, ENABLE);
    let took = clock.time_of(VECTOR, 1, start);
    report.within("HPET one-shot of 2000 us", took, 1900, PATIENCE - 1);
    clock.pass_open(5000);
    report.equal("HPET one-shot comes once", interrupts::seen(VECTOR), 1);
    hpet.write(comparator(0), hpet.read(COUNTER) + hpet.ticks(1000));
    cpu::wait_for_interrupt();
    report.equal("HPET wakes HLT", interrupts::seen(VECTOR), 2);
    hpet.write(config(0), u64::from(input) << ROUTE_SHIFT);
    hpet.write(comparator(0), hpet.read(COUNTER) + hpet.ticks(1000));
    clock.pass_open(3000);
    report.equal("HPET timer off is silent", interrupts::seen(VECTOR), 2);
    hpet.stop();

    // With 32 bits the comparator's upper half is out of play.
    interrupts::reset(VECTOR);
    hpet.write(config(0), INTERRUPT | BITS_32 | u64::from(input) << ROUTE_SHIFT);
    hpet.write(comparator(0), hpet.ticks(1000));
    hpet.write(CONFIGURATION, ENABLE);
    report.equal("HPET with 32 bits", clock.expect(VECTOR, 1), 1);
    hpet.stop();
}

fn periodic(report: &mut Report, clock: Clock, hpet: Hpet, input: u32) {
    interrupts::reset(VECTOR);
    let route = u64::from(input) << ROUTE_SHIFT;
    let millisecond = hpet.ticks(1000);
    hpet.write(config(0), INTERRUPT | PERIODIC | SET_VALUE | route);
    hpet.write(comparator(0), millisecond);
    hpet.write(comparator(0), millisecond);
    let start = cpu::tsc();
    hpet.write(CONFIGURATION, ENABLE);
    let took = clock.time_of(VECTOR, 20, start);
    report.within("HPET, 20 periods of 1 ms", took, 19_000, PATIENCE);
    let next = hpet.read(comparator(0));
    report.equal("HPET comparator moves by whole periods", next % millisecond, 0);
    report.holds("HPET comparator moves", next > 19 * millisecond, next);
    hpet.stop();
    cpu::open_interrupt_window();
    interrupts::reset(VECTOR);
    clock.pass_open(3000);
    report.equal("HPET periodic stops", interrupts::seen(VECTOR), 0);
}

/// A level lasts until its status bit is cleared.
fn level_triggered(report: &mut Report, clock: Clock, hpet: Hpet, input: u32) {
    interrupts::count_without_end(VECTOR);
    apic::route(input, apic::LEVEL | VECTOR as u32);
    hpet.write(config(0), LEVEL | INTERRUPT | u64::from(input) << ROUTE_SHIFT);
    hpet.write(comparator(0), hpet.ticks(1000));
    hpet.write(CONFIGURATION, ENABLE);
    let first = (clock.expect(VECTOR, 1), hpet.read(STATUS) & 7, level::remote_irr(input));
    report.equal("HPET level, status, remote IRR", first, (1, 1, true));
    apic::end_of_interrupt();
    clock.pass_open(500);
    report.equal("HPET level lasts", interrupts::seen(VECTOR), 2);
    hpet.write(STATUS, 6);
    report.equal("HPET status of others clears nothing", hpet.read(STATUS) & 7, 1);
    hpet.write(STATUS, 1);
    apic::end_of_interrupt();
    clock.pass_open(500);
    let over = (interrupts::seen(VECTOR), hpet.read(STATUS) & 7, level::remote_irr(input));
    report.equal("HPET level is over", over, (2, 0, false));
    apic::route(input, apic::MASKED);
    hpet.stop();
    interrupts::count(VECTOR);
}

/// Comparators 0 and 1 in the place of PIT and RTC.
fn legacy(report: &mut Report, clock: Clock, hpet: Hpet) {
    interrupts::count(PIT_VECTOR);
    apic::route(pit_tests::IOAPIC_INPUT, PIT_VECTOR as u32);
    apic::route(RTC_INPUT, VECTOR as u32);
    let millisecond = hpet.ticks(1000);
    for timer in 0..2 {
        hpet.write(config(timer), INTERRUPT);
        hpet.write(comparator(timer), (timer + 1) * millisecond);
    }
    hpet.write(CONFIGURATION, LEGACY | ENABLE);
    pit::start_channel0(2, (pit::FREQUENCY / 1000) as u16);
    clock.pass_open(20_000);
    let seen = (interrupts::seen(PIT_VECTOR), interrupts::seen(VECTOR));
    report.equal("HPET in the place of PIT and RTC", seen, (1, 1));
    hpet.write(CONFIGURATION, 0);
    interrupts::reset(PIT_VECTOR);
    interrupts::wait(PIT_VECTOR, 5, clock.cycles(PATIENCE));
    let seen = interrupts::seen(PIT_VECTOR);
    report.holds("PIT is back without legacy replacement", seen >= 5, seen);
    pit::stop_channel0();
    apic::route(pit_tests::IOAPIC_INPUT, apic::MASKED);
    apic::route(RTC_INPUT, apic::MASKED);
}
