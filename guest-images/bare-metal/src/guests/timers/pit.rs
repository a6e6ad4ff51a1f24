// SPDX-License-Identifier: MIT OR Apache-2.0
//! The 8254 through both kinds of interrupt controller, its gated channel, and the PM timer.

use super::{Clock, PATIENCE};
use crate::rt::report::Report;
use crate::rt::{acpi, apic, cpu, interrupts, pic, pit};

/// Vector of the PIT by way of the IOAPIC.
const VECTOR: u64 = 0x42;
/// Input of the IOAPIC to which the PIT is wired, by the interrupt source override.
pub const IOAPIC_INPUT: u32 = 2;
/// Delivery mode of the pair of 8259s at LINT0.
const EXTERNAL: u32 = 7 << 8;
const MILLISECOND: u16 = (pit::FREQUENCY / 1000) as u16;

pub fn run(report: &mut Report, clock: Clock) {
    by_pic(report, clock);
    by_ioapic(report, clock);
    gated(report, clock);
    power_management(report, clock);
}

fn by_pic(report: &mut Report, clock: Clock) {
    pic::init();
    apic::write(apic::LVT_LINT0, EXTERNAL);
    interrupts::count_pic(pic::BASE);
    pic::set_mask(0xFFFE);
    report.equal("PIC masks read back", pic::mask(), 0xFFFE);
    pit::start_channel0(2, MILLISECOND);
    let took = clock.time_of(pic::BASE, 20, cpu::tsc());
    report.within("PIT by PIC, 20 periods of 1 ms", took, 18_000, PATIENCE);
    pic::set_mask(0xFFFF);
    cpu::open_interrupt_window();
    interrupts::reset(pic::BASE);
    clock.pass_open(3000);
    report.equal("PIT by PIC, masked", interrupts::seen(pic::BASE), 0);
    pit::stop_channel0();

    // What came while masked waits in the request register; it is taken off first.
    pic::init();
    pic::set_mask(0xFFFE);
    pit::start_channel0(0, MILLISECOND);
    clock.until(|| pic::requests() & 1 == 1);
    report.equal("PIT by PIC waits", (interrupts::seen(pic::BASE), pic::requests() & 1), (0, 1));
    cpu::open_interrupt_window();
    clock.pass_open(3000);
    report.equal(
        "PIT by PIC, one-shot",
        (interrupts::seen(pic::BASE), pic::requests() & 1),
        (1, 0),
    );
    interrupts::reset(pic::BASE);
    pit::start_channel0(0, MILLISECOND);
    cpu::wait_for_interrupt();
    report.equal("PIT by PIC wakes HLT", interrupts::seen(pic::BASE), 1);
    pic::set_mask(0xFFFF);
    apic::write(apic::LVT_LINT0, apic::MASKED);
}

fn by_ioapic(report: &mut Report, clock: Clock) {
    interrupts::count(VECTOR);
    pit::stop_channel0();
    apic::route(IOAPIC_INPUT, VECTOR as u32);
    let entry = apic::ioapic_read(apic::redirection(IOAPIC_INPUT));
    report.equal("IOAPIC entry reads back", entry & 0x1_AFFF, VECTOR as u32);
    pit::start_channel0(2, MILLISECOND);
    let took = clock.time_of(VECTOR, 20, cpu::tsc());
    report.within("PIT by IOAPIC, 20 periods of 1 ms", took, 18_000, PATIENCE);
    apic::route(IOAPIC_INPUT, apic::MASKED | VECTOR as u32);
    cpu::open_interrupt_window();
    interrupts::reset(VECTOR);
    clock.pass_open(3000);
    report.equal("PIT by IOAPIC, masked", interrupts::seen(VECTOR), 0);
    pit::start_channel0(0, MILLISECOND);
    apic::route(IOAPIC_INPUT, VECTOR as u32);
    interrupts::reset(VECTOR);
    pit::start_channel0(0, MILLISECOND);
    report.equal("PIT by IOAPIC, one-shot", clock.expect(VECTOR, 1), 1);
    apic::route(IOAPIC_INPUT, apic::MASKED);
    pit::start_channel0(2, 50_000);
    let mut falls = 0;
    let mut last = pit::count_channel0();
    for _ in 0..50 {
        let now = pit::count_channel0();
        falls += u32::from(now <= last);
        last = now;
    }
    report.within("PIT count falls", falls.into(), 48, 50);
    pit::stop_channel0();
}

fn gated(report: &mut Report, clock: Clock) {
    pit::set_gate2(false);
    let start = cpu::tsc();
    pit::start_channel2(MILLISECOND * 5);
    if cpu::is_bare_tcg() {
        report.skip("PIT 2 waits for its gate", "QEMU's PIT counts while it is closed");
    } else {
        clock.pass(8000);
        report.equal("PIT 2 waits for its gate", pit::output2(), false);
    }
    pit::set_gate2(true);
    report.equal("PIT 2 output is low", pit::output2(), false);
    let first = pit::count_channel2();
    clock.until(pit::output2);
    let took = clock.microseconds(cpu::tsc().wrapping_sub(start));
    report.equal("PIT 2 output rises", pit::output2(), true);
    report.within("PIT 2 takes 5000 us", took, 4500, PATIENCE);
    report.within("PIT 2 counted from there", first.into(), 1, u64::from(MILLISECOND) * 5);
    pit::set_gate2(false);
}

/// The power management timer of ACPI: 3.579545 MHz, 24 or 32 bits.
fn power_management(report: &mut Report, clock: Clock) {
    let port = acpi::table(b"FACP").and_then(|fadt| fadt.u32(76)).unwrap_or(0);
    let Some(port) = u16::try_from(port).ok().filter(|&port| port != 0) else {
        report.skip("PM timer", "the FADT names none");
        return;
    };
    let (mut ticks, mut expected) = (0, 0);
    // Tried again when another task came between the two clocks.
    for _ in 0..20 {
        let (start, first) = (cpu::tsc(), cpu::in32(port));
        clock.pass(10_000);
        let (last, end) = (cpu::in32(port), cpu::tsc());
        ticks = u64::from(last.wrapping_sub(first) & 0xFF_FFFF);
        expected = clock.microseconds(end.wrapping_sub(start)) * 3_579_545 / 1_000_000;
        if ticks.abs_diff(expected) < expected / 20 {
            break;
        }
    }
    report.within("PM timer rate", ticks, expected * 9 / 10, expected * 11 / 10);
}
