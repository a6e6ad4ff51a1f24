// SPDX-License-Identifier: MIT OR Apache-2.0
//! Multiple APIC description table (ACPI 6.5, 5.2.12).

use alloc::vec::Vec;

use acpi_tables::{
    madt::{EnabledStatus, IoApic as IoApicEntry, ProcessorLocalApic},
    sdt::Sdt,
};

use super::build::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes_of};
use crate::{IoApic, IrqRouter};

const REVISION: u8 = 5;
const HEADER: u32 = 36;
const LOCAL_APIC_ADDRESS: u32 = 0xFEE0_0000;
/// There is a pair of 8259A, too.
const PCAT_COMPAT: u32 = 1;

/// Highest APIC ID of a plain entry; 255 means "all".
const LAST_XAPIC_ID: u32 = 254;

/// GSI of the timer interrupt, ISA interrupt 0.
const TIMER_GSI: u32 = 2;

/// MPS INTI flags: as on the bus, active high, level-triggered (table 5.26).
const AS_BUS: u16 = 0;
const HIGH_LEVEL: u16 = 0b1101;

/// The table for `vcpus` vCPUs with APIC IDs from zero.
pub(super) fn build(vcpus: u32) -> Vec<u8> {
    let mut madt = Sdt::new(*b"APIC", HEADER, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    madt.append_slice(&LOCAL_APIC_ADDRESS.to_le_bytes());
    madt.append_slice(&PCAT_COMPAT.to_le_bytes());
    let mut entries = Vec::new();
    for id in 0..vcpus {
        match u8::try_from(id) {
            Ok(id) if u32::from(id) <= LAST_XAPIC_ID => {
                let entry = ProcessorLocalApic::new(id, id, EnabledStatus::Enabled);
                entries.extend(bytes_of(&entry));
            }
            _ => entries.extend(x2apic(id)),
        }
    }
    entries.extend(bytes_of(&IoApicEntry::new(io_apic_id(vcpus), IoApic::BASE.as_u64() as u32, 0)));
    entries.extend(source_override(0, TIMER_GSI, AS_BUS));
    entries.extend(source_override(IrqRouter::SCI as u8, IrqRouter::SCI, HIGH_LEVEL));
    entries.extend(local_nmi());
    if vcpus > LAST_XAPIC_ID + 1 {
        entries.extend(local_x2apic_nmi());
    }
    madt.append_slice(&entries);
    madt.as_slice().to_vec()
}

/// The ID after the local APICs' if the four bits of an I/O APIC's ID register can hold it,
/// else the last of those.
pub(crate) const fn io_apic_id(vcpus: u32) -> u8 {
    if vcpus < 15 { vcpus as u8 } else { 15 }
}

/// Processor local x2APIC (5.2.12.12).
fn x2apic(id: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[0] = 9;
    entry[1] = 16;
    entry[4..8].copy_from_slice(&id.to_le_bytes());
    entry[8..12].copy_from_slice(&(EnabledStatus::Enabled as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&id.to_le_bytes());
    entry
}

/// Interrupt source override (5.2.12.5).
fn source_override(isa: u8, gsi: u32, flags: u16) -> [u8; 10] {
    let mut entry = [0; 10];
    entry[..4].copy_from_slice(&[2, 10, 0, isa]);
    entry[4..8].copy_from_slice(&gsi.to_le_bytes());
    entry[8..].copy_from_slice(&flags.to_le_bytes());
    entry
}

/// Local APIC NMI (5.2.12.7): LINT1 of all processors.
fn local_nmi() -> [u8; 6] {
    [4, 6, 0xFF, 0, 0, 1]
}

/// Local x2APIC NMI (5.2.12.13): LINT1 of all processors.
fn local_x2apic_nmi() -> [u8; 12] {
    [0xA, 12, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(vcpus: u32) -> Vec<Vec<u8>> {
        let table = build(vcpus);
        let mut rest = &table[44..];
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (entry, after) = rest.split_at(usize::from(rest[1]));
            entries.push(entry.to_vec());
            rest = after;
        }
        entries
    }

    #[test]
    fn small_machine() {
        assert_eq!(
            entries(2),
            [
                vec![0, 8, 0, 0, 1, 0, 0, 0],
                vec![0, 8, 1, 1, 1, 0, 0, 0],
                vec![1, 12, 2, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0],
                vec![2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
                vec![2, 10, 0, 9, 9, 0, 0, 0, 0xD, 0],
                vec![4, 6, 0xFF, 0, 0, 1],
            ]
        );
    }

    #[test]
    fn apic_ids_beyond_eight_bits_get_x2apic_entries() {
        let entries = entries(257);
        assert_eq!(entries.iter().filter(|e| e[0] == 0).count(), 255);
        let wide: Vec<_> = entries.iter().filter(|e| e[0] == 9).collect();
        assert_eq!(wide.len(), 2);
        assert_eq!(wide[1][4..8], 256u32.to_le_bytes());
        assert_eq!(wide[1][12..16], 256u32.to_le_bytes());
        assert!(entries.iter().any(|e| e[0] == 0xA));
    }
}
