// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables by which an operating system without ACPI finds CPUs and interrupt controllers
//! (Intel, "MultiProcessor Specification", version 1.4, chapter 4).

use anyhow::Result;

/// Where they are: the last KiB of conventional memory, one of the places to be searched.
pub const ADDRESS: u64 = 0x9_FC00;

const VERSION: u8 = 4;
const LOCAL_APIC: u32 = 0xFEE0_0000;
const IO_APIC: u32 = 0xFEC0_0000;
/// Versions of the in-kernel controllers of KVM.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;

/// Types of entries.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC_ENTRY: u8 = 2;
const INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

/// A usable processor, and the one that starts.
const ENABLED: u8 = 1;
const BOOTSTRAP: u8 = 2;
/// Types of interrupts.
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;
/// All processors.
const ALL: u8 = 0xFF;
/// Interrupt lines of the ISA bus.
const LINES: u8 = 16;

/// The floating pointer, and behind it the configuration table. Interrupt lines lead to the inputs
/// of the I/O APIC with the same numbers, as KVM has it.
///
/// # Errors
/// When there are more CPUs than APIC identifiers.
pub fn make(cpus: u64) -> Result<Vec<u8>> {
    let cpus = u8::try_from(cpus)?;
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for id in 0..cpus {
        let flags = if id == 0 { ENABLED | BOOTSTRAP } else { ENABLED };
        let mut entry = vec![PROCESSOR, id, LOCAL_APIC_VERSION, flags];
        // Signature and features are left to CPUID.
        entry.resize(20, 0);
        entries.push(entry);
    }
    entries.push([[BUS, 0].as_slice(), b"ISA   "].concat());
    let io_apic = [IO_APIC_ENTRY, cpus, IO_APIC_VERSION, ENABLED];
    entries.push([io_apic.as_slice(), &IO_APIC.to_le_bytes()].concat());
    entries.extend((0..LINES).map(|line| vec![INTERRUPT, VECTORED, 0, 0, 0, line, cpus, line]));
    entries.push(vec![LOCAL_INTERRUPT, EXTERNAL, 0, 0, 0, 0, 0, 0]);
    entries.push(vec![LOCAL_INTERRUPT, NMI, 0, 0, 0, 0, ALL, 1]);

    let count = u16::try_from(entries.len())?;
    let entries = entries.concat();
    let mut table = b"PCMP".to_vec();
    table.extend(u16::try_from(44 + entries.len())?.to_le_bytes());
    table.extend([VERSION, 0]);
    table.extend(b"KVM     RUNNER      ");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(LOCAL_APIC.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = checksum(&table);

    let mut pointer = b"_MP_".to_vec();
    pointer.extend((u32::try_from(ADDRESS)? + 16).to_le_bytes());
    // One paragraph long; no default configuration.
    pointer.extend([1, VERSION, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);
    pointer.extend(table);
    Ok(pointer)
}

/// What makes the sum zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_zero_and_lengths_are_right() {
        let bytes = make(2).unwrap();
        let (pointer, table) = bytes.split_at(16);
        assert_eq!(checksum(pointer), 0);
        assert_eq!(checksum(table), 0);
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        // Two processors, a bus, an I/O APIC, 16 lines and two local ones.
        assert_eq!(table.len(), 44 + 2 * 20 + 8 + 8 + 18 * 8);
        assert_eq!(u16::from_le_bytes([table[34], table[35]]), 22);
        assert!(bytes.len() <= 1024, "the last KiB of conventional memory");
        assert!(make(256).is_err());
    }
}
