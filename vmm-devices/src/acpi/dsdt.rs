// SPDX-License-Identifier: MIT OR Apache-2.0
//! Differentiated system description table: the devices, as AML (ACPI 6.5, 5.2.11.1).

use alloc::{format, vec, vec::Vec};

use acpi_tables::{
    Aml,
    aml::{
        Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope,
        ZERO,
    },
    sdt::Sdt,
};

use super::{
    PlatformConfig,
    build::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes_of},
    pci_root,
};
use crate::{
    ExitPort, Hpet,
    pci::{ECAM_BASE, ECAM_BYTES},
    pm::{PM_BASE, PM_PORTS, SLEEP_TYPE_S5},
    reset::SystemControlPortA,
};

/// From revision 2 on, integers have 64 bits.
const REVISION: u8 = 2;
const HEADER: u32 = 36;

/// The table.
pub(super) fn build(config: &PlatformConfig) -> Vec<u8> {
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let s5 = Package::new(vec![&SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO]);
    let mut aml = bytes_of(&Name::new("_S5_".into(), &s5));
    let mut devices = Vec::new();
    devices.extend(pci_root::build(config));
    devices.extend(motherboard(config.exit_port));
    devices.extend(isa_device("COM1", "PNP0501", &IO::new(0x3F8, 0x3F8, 1, 8), Some(4)));
    devices.extend(isa_device("RTC_", "PNP0B00", &IO::new(0x70, 0x70, 1, 2), Some(8)));
    devices.extend(isa_device("TIMR", "PNP0100", &IO::new(0x40, 0x40, 1, 4), None));
    devices.extend(hpet());
    for index in 0..config.vcpus {
        devices.extend(processor(index));
    }
    aml.extend(bytes_of(&Scope::new("_SB_".into(), vec![&Raw(devices)])));
    dsdt.append_slice(&aml);
    dsdt.as_slice().to_vec()
}

/// AML that is already there.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// What nobody else may use: configuration window, ACPI registers, ports without a device.
fn motherboard(exit_port: Option<u16>) -> Vec<u8> {
    // Both values are far below 4 GiB.
    let ecam = Memory32Fixed::new(true, ECAM_BASE.as_u64() as u32, ECAM_BYTES as u32);
    let pm = IO::new(PM_BASE, PM_BASE, 1, PM_PORTS as u8);
    let port_a = IO::new(SystemControlPortA::PORT, SystemControlPortA::PORT, 1, 1);
    let exit = exit_port.map(|port| IO::new(port, port, 1, ExitPort::PORTS as u8));
    let mut resources: Vec<&dyn Aml> = vec![&ecam, &pm, &port_a];
    if let Some(exit) = &exit {
        resources.push(exit);
    }
    bytes_of(&Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
        ],
    ))
}

fn isa_device(name: &str, id: &str, ports: &IO, irq: Option<u32>) -> Vec<u8> {
    let interrupt = irq.map(|irq| Interrupt::new(true, true, false, false, irq));
    let mut resources: Vec<&dyn Aml> = vec![ports];
    if let Some(interrupt) = &interrupt {
        resources.push(interrupt);
    }
    bytes_of(&Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new(id)),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
        ],
    ))
}

fn hpet() -> Vec<u8> {
    // Both values are below 4 GiB.
    let registers = Memory32Fixed::new(true, Hpet::BASE.as_u64() as u32, Hpet::BYTES as u32);
    bytes_of(&Device::new(
        "HPET".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0103")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers])),
        ],
    ))
}

/// Present, enabled, shown, functioning (ACPI 6.5, 6.3.7).
const PRESENT: u8 = 0xF;

fn processor(index: u32) -> Vec<u8> {
    bytes_of(&Device::new(
        format!("C{index:03X}").as_str().into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0007"),
            &Name::new("_UID".into(), &index),
            &Name::new("_STA".into(), &PRESENT),
        ],
    ))
}
