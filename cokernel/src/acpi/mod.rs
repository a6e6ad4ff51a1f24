// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few ACPI tables that the co-kernel needs (ACPI Specification 6.5, chapter 5).
//!
//! Every length and pointer is checked; a table with a wrong checksum is not used.

mod fadt;
mod madt;

use alloc::vec::Vec;
use core::fmt;

pub use fadt::{Fadt, TimerBlock};
pub use madt::{InterruptOverride, IoApicEntry, Madt, MadtCpu, Polarity, Trigger};

use crate::{
    PhysAddr,
    address::{PhysMemory, read_u16, read_u32, read_u64},
    boot::Rsdp,
};

const HEADER_BYTES: usize = 36;
/// No table that is read here is longer.
const MAX_TABLE_BYTES: u32 = 1 << 20;

/// Why the ACPI tables cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AcpiError {
    /// No root pointer was found.
    NoRootPointer,
    /// The root table is missing, out of reach, or has a wrong checksum.
    BadRootTable,
    /// The table with this signature is missing or damaged.
    MissingTable([u8; 4]),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRootPointer => f.write_str("the firmware has no ACPI root pointer (RSDP)"),
            Self::BadRootTable => f.write_str("the ACPI root table (XSDT or RSDT) is damaged"),
            Self::MissingTable(signature) => {
                write!(f, "the ACPI table {} is missing or damaged", signature.escape_ascii())
            }
        }
    }
}

impl core::error::Error for AcpiError {}

/// One PCI segment's memory-mapped configuration space (PCI Firmware Specification 3.3,
/// table 4-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciConfigSpace {
    /// Address of bus 0 of the segment.
    pub base: PhysAddr,
    /// Segment group number.
    pub segment: u16,
    /// First bus that is decoded.
    pub first_bus: u8,
    /// Last bus that is decoded.
    pub last_bus: u8,
}

/// What was learnt from the tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acpi {
    /// CPUs and interrupt controllers.
    pub madt: Madt,
    /// The PM timer; `None` if there is no usable FADT.
    pub fadt: Option<Fadt>,
    /// PCI configuration spaces.
    pub pci: Vec<PciConfigSpace>,
}

impl Acpi {
    /// Reads the tables that `rsdp` leads to, or, without one, the root pointer found in the
    /// BIOS area (ACPI 6.5, section 5.2.5.1).
    ///
    /// # Errors
    /// [`AcpiError`] if there is no root pointer, no root table or no MADT.
    pub fn read(memory: &dyn PhysMemory, rsdp: Option<&Rsdp>) -> Result<Self, AcpiError> {
        let roots = match rsdp {
            Some(Rsdp::Copy(bytes)) => root_tables(bytes),
            Some(Rsdp::Address(at)) => root_tables_at(memory, at.0),
            None => search_bios_area(memory),
        };
        let tables =
            roots.ok_or(AcpiError::NoRootPointer)?.tables(memory).ok_or(AcpiError::BadRootTable)?;
        let find = |signature: &[u8; 4]| tables.iter().find(|t| t.starts_with(signature)).copied();
        let madt = find(b"APIC").and_then(Madt::parse);
        Ok(Self {
            madt: madt.ok_or(AcpiError::MissingTable(*b"APIC"))?,
            fadt: find(b"FACP").and_then(Fadt::parse),
            pci: find(b"MCFG").map(parse_mcfg).unwrap_or_default(),
        })
    }
}

/// Physical addresses of the root tables; zero if absent.
struct RootTables {
    rsdt: u64,
    xsdt: u64,
}

impl RootTables {
    /// All intact tables that the XSDT, or else the RSDT, lists.
    fn tables<'a>(&self, memory: &'a dyn PhysMemory) -> Option<Vec<&'a [u8]>> {
        let xsdt = table(memory, self.xsdt).filter(|t| t.starts_with(b"XSDT"));
        let (root, width) = match xsdt {
            Some(xsdt) => (xsdt, 8),
            None => (table(memory, self.rsdt).filter(|t| t.starts_with(b"RSDT"))?, 4),
        };
        let addresses = root.get(HEADER_BYTES..)?.chunks_exact(width).filter_map(|entry| {
            if width == 8 { read_u64(entry, 0) } else { read_u32(entry, 0).map(u64::from) }
        });
        Some(addresses.filter_map(|address| table(memory, address)).collect())
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table at `address` with its header, if its checksum is right.
fn table(memory: &dyn PhysMemory, address: u64) -> Option<&[u8]> {
    if address == 0 {
        return None;
    }
    let length = read_u32(memory.bytes(address, HEADER_BYTES)?, 4)?;
    if length > MAX_TABLE_BYTES || (length as usize) < HEADER_BYTES {
        return None;
    }
    memory.bytes(address, length as usize).filter(|bytes| sum(bytes) == 0)
}

fn root_tables(rsdp: &[u8]) -> Option<RootTables> {
    let first = rsdp.get(..20)?;
    if !first.starts_with(b"RSD PTR ") || sum(first) != 0 {
        return None;
    }
    let extended = (first.get(15).copied()? >= 2)
        .then(|| rsdp.get(..36))
        .flatten()
        .filter(|bytes| sum(bytes) == 0)
        .and_then(|bytes| read_u64(bytes, 24));
    Some(RootTables { rsdt: u64::from(read_u32(first, 16)?), xsdt: extended.unwrap_or(0) })
}

fn root_tables_at(memory: &dyn PhysMemory, address: u64) -> Option<RootTables> {
    memory.bytes(address, 36).or_else(|| memory.bytes(address, 20)).and_then(root_tables)
}

fn search_bios_area(memory: &dyn PhysMemory) -> Option<RootTables> {
    let ebda = memory.bytes(0x40E, 2).and_then(|b| read_u16(b, 0)).map_or(0, |s| u64::from(s) << 4);
    let ebda_end = if ebda == 0 { 0 } else { ebda + 1024 };
    (ebda..ebda_end)
        .step_by(16)
        .chain((0xE_0000..0x10_0000).step_by(16))
        .find_map(|address| root_tables_at(memory, address))
}

fn parse_mcfg(table: &[u8]) -> Vec<PciConfigSpace> {
    let entries = table.get(HEADER_BYTES + 8..).unwrap_or_default();
    entries
        .chunks_exact(16)
        .filter_map(|entry| {
            Some(PciConfigSpace {
                base: PhysAddr(read_u64(entry, 0)?),
                segment: read_u16(entry, 8)?,
                first_bus: *entry.get(10)?,
                last_bus: *entry.get(11)?,
            })
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::address::TestMemory;

    pub(crate) fn seal(mut bytes: Vec<u8>, checksum_at: usize) -> Vec<u8> {
        bytes[checksum_at] = 0;
        bytes[checksum_at] = sum(&bytes).wrapping_neg();
        bytes
    }

    /// A table with a valid header around `body`.
    pub(crate) fn make_table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = signature.to_vec();
        bytes.extend((HEADER_BYTES as u32 + body.len() as u32).to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(body);
        seal(bytes, 9)
    }

    fn rsdp(revision: u8) -> Vec<u8> {
        let mut bytes = b"RSD PTR ".to_vec();
        bytes.resize(15, 0);
        bytes.push(revision);
        bytes.extend(0x1000u32.to_le_bytes());
        let mut bytes = seal(bytes, 8);
        bytes.extend(36u32.to_le_bytes());
        bytes.extend(0x2000u64.to_le_bytes());
        bytes.resize(36, 0);
        seal(bytes, 32)
    }

    fn machine(revision: u8) -> TestMemory {
        let mut mcfg = vec![0; 8];
        mcfg.extend(0xB000_0000u64.to_le_bytes());
        mcfg.extend([0, 0, 0, 255, 0, 0, 0, 0]);
        let rsdt: Vec<u8> = [0x3000u32].iter().flat_map(|a| a.to_le_bytes()).collect();
        let xsdt: Vec<u8> =
            [0x9999_0000u64, 0x3000, 0x4000].iter().flat_map(|a| a.to_le_bytes()).collect();
        TestMemory(vec![
            (0xF_5000, rsdp(revision)),
            (0x1000, make_table(b"RSDT", &rsdt)),
            (0x2000, make_table(b"XSDT", &xsdt)),
            (0x3000, make_table(b"APIC", &[0, 0, 0xE0, 0xFE, 1, 0, 0, 0])),
            (0x4000, make_table(b"MCFG", &mcfg)),
        ])
    }

    #[test]
    fn xsdt_is_preferred_and_unreachable_tables_are_skipped() {
        let acpi = Acpi::read(&machine(2), None).unwrap();
        assert_eq!(acpi.madt.local_apic.0, 0xFEE0_0000);
        assert_eq!(acpi.pci[0].base.0, 0xB000_0000);
        assert_eq!(acpi.pci[0].last_bus, 255);
    }

    #[test]
    fn version_one_uses_the_rsdt() {
        let acpi = Acpi::read(&machine(0), None).unwrap();
        assert!(acpi.pci.is_empty());
        let copy = Rsdp::Copy(rsdp(0)[..20].to_vec());
        assert_eq!(Acpi::read(&machine(0), Some(&copy)), Ok(acpi));
    }

    #[test]
    fn damage_is_named() {
        let mut memory = machine(2);
        memory.0[3].1[20] ^= 1;
        assert_eq!(Acpi::read(&memory, None), Err(AcpiError::MissingTable(*b"APIC")));
        memory.0[2].1[20] ^= 1;
        memory.0[1].1[20] ^= 1;
        assert_eq!(Acpi::read(&memory, None), Err(AcpiError::BadRootTable));
        memory.0[0].1[10] ^= 1;
        assert_eq!(Acpi::read(&memory, None), Err(AcpiError::NoRootPointer));
    }

    proptest! {
        #[test]
        fn arbitrary_table_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Madt::parse(&make_table(b"APIC", &body));
            let _ = Fadt::parse(&make_table(b"FACP", &body));
            let _ = parse_mcfg(&make_table(b"MCFG", &body));
        }
    }
}
