// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PCI root bridge in the DSDT (PCI Firmware Specification 3.3, 4.1 to 4.6).

use alloc::{vec, vec::Vec};

use acpi_tables::{
    Aml,
    aml::{
        AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else,
        Equal, IO, If, Local, Method, Name, NotEqual, Or, PackageBuilder, Path, ResourceTemplate,
        Return, Store, Uuid, ZERO,
    },
};
use vmm_core::memory::{HIGH_MEMORY, LOW_MEMORY_END, MemoryLayout};

use super::{PlatformConfig, build::bytes_of};
use crate::pci::{CONFIG_PORTS, CONFIG_PORTS_BASE, ECAM_BASE, LAST_BUS};

const GIB: u64 = 1 << 30;

/// First of the four GSIs that PCI interrupt pins reach.
const FIRST_PCI_GSI: u32 = 16;
const PCI_GSIS: u32 = 4;

/// What the operating system may do by itself once it has asked: hot plug, power management
/// events, error reporting, and the PCI Express capability structure. There is no firmware
/// that would do it instead; only the standard hot-plug controller (bit 1) does not exist.
const OSC_GRANTED: u32 = 0x1D;

/// The root bridge.
pub(super) fn build(config: &PlatformConfig) -> Vec<u8> {
    bytes_of(&Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Windows(config),
            &OperatingSystemCapabilities,
            &Name::new("_PRT".into(), &interrupt_routes()),
        ],
    ))
}

/// The resources behind the bridge: `_CRS`.
struct Windows<'a>(&'a PlatformConfig);

impl Aml for Windows<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let buses = AddressSpace::new_bus_number(0u16, u16::from(LAST_BUS));
        let config_ports = IO::new(CONFIG_PORTS_BASE, CONFIG_PORTS_BASE, 1, CONFIG_PORTS as u8);
        let below = AddressSpace::new_io(0u16, CONFIG_PORTS_BASE - 1, None);
        let above = AddressSpace::new_io(CONFIG_PORTS_BASE + CONFIG_PORTS, u16::MAX, None);
        // Both ends are below 4 GiB.
        let memory = AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            LOW_MEMORY_END.as_u64() as u32,
            (ECAM_BASE.as_u64() - 1) as u32,
            None,
        );
        let high = high_window(self.0.memory, self.0.address_bits).map(|(first, last)| {
            AddressSpace::new_memory(AddressSpaceCacheable::PreFetchable, true, first, last, None)
        });
        let mut windows: Vec<&dyn Aml> = vec![&buses, &config_ports, &below, &above, &memory];
        if let Some(high) = &high {
            windows.push(high);
        }
        Name::new("_CRS".into(), &ResourceTemplate::new(windows)).to_aml_bytes(sink);
    }
}

/// First and last byte of the 64-bit window: all that the CPU can address above memory.
fn high_window(memory: MemoryLayout, address_bits: u8) -> Option<(u64, u64)> {
    let first = HIGH_MEMORY.as_u64().checked_add(memory.high)?.checked_next_multiple_of(GIB)?;
    let end = 1u64.checked_shl(u32::from(address_bits)).filter(|_| address_bits <= 52)?;
    (first < end).then(|| (first, end - 1))
}

/// `_OSC`: who controls which PCI Express feature (PCI Firmware Specification 3.3, 4.5.1).
struct OperatingSystemCapabilities;

impl Aml for OperatingSystemCapabilities {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        const UNRECOGNIZED_UUID: u8 = 1 << 2;
        const UNRECOGNIZED_REVISION: u8 = 1 << 3;
        const CAPABILITIES_MASKED: u8 = 1 << 4;
        let (uuid, revision, buffer) = (Arg(0), Arg(1), Arg(3));
        let (status, control) = (Path::new("CDW1"), Path::new("CDW3"));
        let granted = Local(0);
        Method::new(
            "_OSC".into(),
            4,
            true,
            vec![
                &CreateDWordField::new(&status, &buffer, &0u8),
                &If::new(
                    &Equal::new(&uuid, &Uuid::new("33db4d5b-1ff7-401c-9657-7441c03dd766")),
                    vec![
                        &CreateDWordField::new(&control, &buffer, &8u8),
                        &And::new(&granted, &control, &OSC_GRANTED),
                        &If::new(
                            &NotEqual::new(&revision, &1u8),
                            vec![&Or::new(&status, &status, &UNRECOGNIZED_REVISION)],
                        ),
                        &If::new(
                            &NotEqual::new(&control, &granted),
                            vec![&Or::new(&status, &status, &CAPABILITIES_MASKED)],
                        ),
                        &Store::new(&control, &granted),
                    ],
                ),
                &Else::new(vec![&Or::new(&status, &status, &UNRECOGNIZED_UUID)]),
                &Return::new(&buffer),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// `_PRT`: pins of all devices, spread over the GSIs (ACPI 6.5, 6.2.13).
fn interrupt_routes() -> PackageBuilder {
    let mut routes = PackageBuilder::new();
    for device in 0..32u32 {
        for pin in 0..4u32 {
            let mut route = PackageBuilder::new();
            route.add_element(&(device << 16 | 0xFFFF));
            route.add_element(&pin);
            route.add_element(&ZERO);
            route.add_element(&(FIRST_PCI_GSI + (device + pin) % PCI_GSIS));
            routes.add_element(&route);
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_window_lies_above_memory_and_below_the_address_limit() {
        let none = MemoryLayout::of(1 << 30);
        assert_eq!(high_window(none, 40), Some((4 * GIB, (1 << 40) - 1)));
        let some = MemoryLayout::of((5 << 30) + 1);
        assert_eq!(high_window(some, 40), Some((7 * GIB, (1 << 40) - 1)));
        assert_eq!(high_window(none, 32), None);
        assert_eq!(high_window(MemoryLayout::of(u64::MAX), 52), None);
        assert_eq!(high_window(none, 64), None);
    }
}
