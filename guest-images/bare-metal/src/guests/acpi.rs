// SPDX-License-Identifier: MIT OR Apache-2.0
//! ACPI tables: there, intact, and true of the machine.
//!
//! Options for the last act: `poweroff` enters S5 by the PM1a control register with the value that
//! the DSDT's `_S5_` gives; `reset` writes the reset register of the FADT.

use crate::rt::acpi::{self, Table};
use crate::rt::report::Report;
use crate::rt::{apic, cpu, pit, start_info};

/// Runs the tests and then the act that the command line names.
pub fn run() -> u32 {
    let mut report = Report::default();
    root(&mut report);
    fixed(&mut report);
    interrupts(&mut report);
    configuration_space(&mut report);
    let failed = report.finish();
    for (word, act) in [("poweroff", power_off as fn()), ("reset", reset)] {
        if failed == 0 && start_info::has_word(word) {
            act();
            // The machine may take a moment to stop.
            for _ in 0..100 {
                pit::wait_10_ms();
            }
            println!("not ok {word}: the machine goes on");
            return 1;
        }
    }
    failed
}

fn root(report: &mut Report) {
    report.equal("start info", start_info::is_valid(), true);
    let Some(pointer) = acpi::root_pointer() else {
        report.holds("root pointer", false, start_info::rsdp());
        return;
    };
    let signature = pointer.u64(0).map(u64::to_le_bytes);
    report.equal("root pointer signature", signature, Some(*b"RSD PTR "));
    let short = Table { length: 20, ..pointer };
    report.equal("root pointer checksum", short.checksum(), 0);
    report.equal("root pointer extended checksum", pointer.checksum(), 0);
    let Some((root, width)) = acpi::root_table() else {
        report.holds("root table", false, pointer.address);
        return;
    };
    let expected = if width == 8 { *b"XSDT" } else { *b"RSDT" };
    report.equal("root table signature", root.signature(), expected);
    report.equal("root table checksum", root.checksum(), 0);
    for table in acpi::tables() {
        let signature = table.signature();
        let name = core::str::from_utf8(&signature).unwrap_or("?");
        report.equal(format_args!("{name} checksum"), table.checksum(), 0);
    }
    for needed in [b"FACP", b"APIC", b"MCFG"] {
        let name = core::str::from_utf8(needed).unwrap_or("?");
        report.equal(format_args!("{name} is there"), acpi::table(needed).is_some(), true);
    }
}

/// The DSDT, by the 64-bit field of the FADT if that is used.
fn dsdt() -> Option<Table> {
    let fadt = acpi::table(b"FACP")?;
    let address = match fadt.u64(140) {
        Some(address) if address != 0 => address,
        _ => fadt.u32(40)?.into(),
    };
    Table::at(address)
}

fn fixed(report: &mut Report) {
    let Some(fadt) = acpi::table(b"FACP") else { return };
    report.within("FADT length", fadt.length.into(), 116, 276);
    let signature = dsdt().map(|table| table.signature());
    report.equal("DSDT", signature, Some(*b"DSDT"));
    report.equal("DSDT checksum", dsdt().map(|table| table.checksum()), Some(0));
    let timer = fadt.u32(76).unwrap_or(0);
    report.within("PM timer port", timer.into(), 1, 0xFFFF);
    let control = fadt.u32(64).unwrap_or(0);
    report.within("PM1a control port", control.into(), 1, 0xFFFF);
    let enabled = cpu::in16(control as u16) & 1;
    let by_command = fadt.u32(48).unwrap_or(0) != 0;
    report.holds("ACPI mode is on or can be switched on", enabled == 1 || by_command, enabled);
    let types = sleep_types();
    report.holds("_S5_ gives sleep types", types.is_some_and(|(a, b)| a < 8 && b < 8), types);
}

fn interrupts(report: &mut Report) {
    let Some(madt) = acpi::table(b"APIC") else { return };
    report.equal("local APIC address", madt.u32(36).map(u64::from), Some(apic::LAPIC));
    let cpus = acpi::cpu_apic_ids().count() as u64;
    report.within("CPUs", cpus, 1, 255);
    apic::enable(false);
    let own = apic::id();
    report.equal("this CPU is listed", acpi::cpu_apic_ids().any(|id| id == own), true);
    let ioapic = acpi::interrupt_structures(madt).find(|&(kind, _)| kind == 1);
    let address = ioapic.and_then(|(_, offset)| madt.u32(offset + 4)).map(u64::from);
    report.equal("IOAPIC address", address, Some(apic::IOAPIC));
    let id = ioapic.and_then(|(_, offset)| madt.u8(offset + 2)).map(u32::from);
    report.equal("IOAPIC identifier", id, Some(apic::ioapic_read(0) >> 24 & 0xF));
    let timer = acpi::interrupt_structures(madt)
        .find(|&(kind, offset)| kind == 2 && madt.u8(offset + 3) == Some(0))
        .and_then(|(_, offset)| madt.u32(offset + 4));
    report.equal("the PIT's input", timer, Some(2));
}

/// The memory-mapped configuration space shows what the ports show.
fn configuration_space(report: &mut Report) {
    let Some(mcfg) = acpi::table(b"MCFG") else { return };
    let base = mcfg.u64(44).unwrap_or(0);
    report.holds("MCFG base", base != 0 && base < 1 << 32 && base & 0xF_FFFF == 0, base);
    if base == 0 || base >= 1 << 32 {
        return;
    }
    for register in [0, 4, 8, 12, 0x2C] {
        cpu::out32(0xCF8, 0x8000_0000 | register);
        let by_port = cpu::in32(0xCFC);
        // SAFETY: the host bridge's configuration space, whose reads have no side effects.
        let by_memory = unsafe { ((base + u64::from(register)) as *const u32).read_volatile() };
        report.equal(format_args!("host bridge register {register:#x}"), by_memory, by_port);
    }
    cpu::out32(0xCF8, 0x8000_0000);
    let vendor = cpu::in32(0xCFC) & 0xFFFF;
    report.holds("host bridge is there", vendor != 0xFFFF, vendor);
}

/// The first two elements of the package `_S5_`, which AML encodes as bytes or as 0 and 1.
fn sleep_types() -> Option<(u8, u8)> {
    let dsdt = dsdt()?;
    let name = u32::from_le_bytes(*b"_S5_");
    let at = (acpi::HEADER..dsdt.length).find(|&offset| dsdt.u32(offset) == Some(name))? + 4;
    // PackageOp, PkgLength of one to four bytes, NumElements.
    if dsdt.u8(at)? != 0x12 {
        return None;
    }
    let mut offset = at + 1 + 1 + u32::from(dsdt.u8(at + 1)? >> 6) + 1;
    let mut element = || {
        let value = match dsdt.u8(offset)? {
            0x0A => {
                offset += 1;
                dsdt.u8(offset)?
            }
            small @ 0..=1 => small,
            _ => return None,
        };
        offset += 1;
        Some(value)
    };
    Some((element()?, element()?))
}

/// Switches ACPI mode on where the machine has a command for it.
fn enable(fadt: Table, control: u16) {
    let (command, value) = (fadt.u32(48).unwrap_or(0), fadt.u8(52).unwrap_or(0));
    if cpu::in16(control) & 1 == 0 && command != 0 {
        cpu::out8(command as u16, value);
    }
}

fn power_off() {
    const SLEEP_ENABLE: u16 = 1 << 13;
    let Some((fadt, (a, _))) = acpi::table(b"FACP").zip(sleep_types()) else { return };
    let control = fadt.u32(64).unwrap_or(0) as u16;
    println!("power off by port {control:#x}, sleep type {a}");
    enable(fadt, control);
    cpu::out16(control, u16::from(a) << 10 | SLEEP_ENABLE);
}

fn reset() {
    let Some(fadt) = acpi::table(b"FACP") else { return };
    let (space, address) = (fadt.u8(116), fadt.u64(120).unwrap_or(0));
    let value = fadt.u8(128).unwrap_or(0);
    println!("reset by register {address:#x} of space {space:?}, value {value:#x}");
    if space == Some(1) {
        cpu::out8(address as u16, value);
    }
}
