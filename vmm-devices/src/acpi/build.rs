// SPDX-License-Identifier: MIT OR Apache-2.0
//! Laying the tables out in guest memory.

use alloc::{vec, vec::Vec};
use core::fmt;

use acpi_tables::{Aml, facs::FACS, mcfg::MCFG, rsdp::Rsdp, xsdt::XSDT};
use vmm_core::{
    GuestPhysAddr,
    memory::{GuestMemory, MemoryError, MemoryLayout},
};

use super::{dsdt, fadt, hpet, madt};
use crate::pci::{ECAM_BASE, LAST_BUS};

/// Where the tables start: the BIOS area, in which guests look for the RSDP by themselves if
/// their loader did not tell them (ACPI 6.5, 5.2.5.1).
pub const TABLES_BASE: GuestPhysAddr = GuestPhysAddr::new(0xE_0000);

/// End of the BIOS area.
pub const TABLES_END: GuestPhysAddr = GuestPhysAddr::new(0x10_0000);

/// Most vCPUs that the tables describe.
pub const MAX_VCPUS: u32 = 1024;

pub(super) const OEM_ID: [u8; 6] = *b"ALCAZR";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"ALCAZRPC";
pub(super) const OEM_REVISION: u32 = 1;

/// FACS must start at a multiple of this (ACPI 6.5, 5.2.10).
const FACS_ALIGNMENT: u64 = 64;
/// The others may start anywhere; this keeps their fields aligned.
const TABLE_ALIGNMENT: u64 = 16;

/// What the tables depend on.
#[derive(Clone, Debug)]
pub struct PlatformConfig {
    /// Number of vCPUs, 1 to [`MAX_VCPUS`]; their APIC IDs are 0, 1, 2, …
    pub vcpus: u32,
    /// Memory of the guest.
    pub memory: MemoryLayout,
    /// Width of the guest's physical addresses in bits, as its CPUID says; bounds the
    /// 64-bit PCI window.
    pub address_bits: u8,
    /// First of the ports of an [`ExitPort`](crate::ExitPort), if there is one.
    pub exit_port: Option<u16>,
}

/// One table, or several, at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blob {
    /// Where it belongs.
    pub address: GuestPhysAddr,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// All tables, ready to be written to guest memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcpiTables {
    /// Address of the RSDP, from which all others are found.
    pub rsdp: GuestPhysAddr,
    /// The tables, in ascending order and without overlap.
    pub blobs: Vec<Blob>,
}

/// Why there are no tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcpiError {
    /// The number of vCPUs is zero or beyond [`MAX_VCPUS`].
    VcpuCount(u32),
    /// The tables do not fit in the BIOS area.
    TooLarge {
        /// Their size in bytes.
        bytes: u64,
    },
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VcpuCount(n) => {
                write!(f, "ACPI tables cannot describe {n} vCPUs; choose 1 to {MAX_VCPUS}")
            }
            Self::TooLarge { bytes } => write!(
                f,
                "the ACPI tables need {bytes} bytes, the BIOS area has {}; choose fewer vCPUs",
                TABLES_END.as_u64() - TABLES_BASE.as_u64()
            ),
        }
    }
}

impl core::error::Error for AcpiError {}

impl AcpiTables {
    /// Writes the tables to guest memory.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`] if the guest has no memory there.
    pub fn write_to(&self, memory: &GuestMemory) -> Result<(), MemoryError> {
        self.blobs.iter().try_for_each(|blob| memory.write(blob.address, &blob.bytes))
    }
}

/// Hands out the BIOS area from its start.
struct Layout {
    next: u64,
    blobs: Vec<Blob>,
}

impl Layout {
    fn reserve(&mut self, bytes: u64, alignment: u64) -> u64 {
        let at = self.next.next_multiple_of(alignment);
        self.next = at + bytes;
        at
    }

    fn place(&mut self, bytes: Vec<u8>, alignment: u64) -> u64 {
        let at = self.reserve(bytes.len() as u64, alignment);
        self.blobs.push(Blob { address: GuestPhysAddr::new(at), bytes });
        at
    }
}

pub(super) fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Builds the tables of a platform.
///
/// # Errors
/// [`AcpiError`].
pub fn build(config: &PlatformConfig) -> Result<AcpiTables, AcpiError> {
    if !(1..=MAX_VCPUS).contains(&config.vcpus) {
        return Err(AcpiError::VcpuCount(config.vcpus));
    }
    let mut layout = Layout { next: TABLES_BASE.as_u64(), blobs: vec![] };
    let rsdp = layout.reserve(Rsdp::len() as u64, TABLE_ALIGNMENT);
    let facs = layout.place(bytes_of(&FACS::new()), FACS_ALIGNMENT);
    let dsdt = layout.place(dsdt::build(config), TABLE_ALIGNMENT);
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // All addresses lie below 1 MiB.
    let fadt = fadt::build(facs as u32, dsdt as u32);
    let tables = [bytes_of(&fadt), madt::build(config.vcpus), bytes_of(&mcfg()), hpet::build()];
    for table in tables {
        xsdt.add_entry(layout.place(table, TABLE_ALIGNMENT));
    }
    let xsdt = layout.place(bytes_of(&xsdt), TABLE_ALIGNMENT);
    let root =
        Blob { address: GuestPhysAddr::new(rsdp), bytes: bytes_of(&Rsdp::new(OEM_ID, xsdt)) };
    layout.blobs.insert(0, root);
    if layout.next > TABLES_END.as_u64() {
        return Err(AcpiError::TooLarge { bytes: layout.next - TABLES_BASE.as_u64() });
    }
    Ok(AcpiTables { rsdp: GuestPhysAddr::new(rsdp), blobs: layout.blobs })
}

/// Where configuration space is mapped (PCI Firmware Specification 3.3, 4.1.2).
fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ECAM_BASE.as_u64(), 0, 0, LAST_BUS);
    mcfg
}

#[cfg(test)]
mod tests {
    use host_iface::PageRequest;
    use host_mock::MockHost;
    use vmm_core::memory::OwnedPages;

    use super::*;
    use crate::Hpet;

    fn config(vcpus: u32) -> PlatformConfig {
        PlatformConfig {
            vcpus,
            memory: MemoryLayout::of(5 << 30),
            address_bits: 40,
            exit_port: Some(0xF4),
        }
    }

    /// A guest's view of its memory.
    struct View(GuestMemory);

    impl View {
        fn of(tables: &AcpiTables) -> Self {
            let pages =
                OwnedPages::zeroed(MockHost::leak(1), PageRequest::contiguous(256)).unwrap();
            let mut memory = GuestMemory::new();
            memory.add(GuestPhysAddr::new(0), pages).unwrap();
            tables.write_to(&memory).unwrap();
            Self(memory)
        }

        fn bytes(&self, at: u64, count: usize) -> Vec<u8> {
            let mut bytes = vec![0; count];
            self.0.read(GuestPhysAddr::new(at), &mut bytes).unwrap();
            bytes
        }

        fn u32(&self, at: u64) -> u32 {
            self.0.read_u32(GuestPhysAddr::new(at)).unwrap()
        }

        fn u64(&self, at: u64) -> u64 {
            self.0.read_u64(GuestPhysAddr::new(at)).unwrap()
        }

        /// A table, after a look at its signature and checksum.
        fn table(&self, at: u64, signature: &[u8; 4]) -> Vec<u8> {
            assert_eq!(self.bytes(at, 4), signature);
            let table = self.bytes(at, self.u32(at + 4) as usize);
            assert_eq!(sum(&table), 0, "checksum of {signature:?}");
            table
        }

        /// Follows the pointers as a guest does.
        fn tables(&self, rsdp: GuestPhysAddr) -> [Vec<u8>; 5] {
            let rsdp = rsdp.as_u64();
            assert_eq!(self.bytes(rsdp, 8), b"RSD PTR ");
            assert_eq!(sum(&self.bytes(rsdp, 20)), 0);
            assert_eq!(sum(&self.bytes(rsdp, 36)), 0);
            let xsdt = self.u64(rsdp + 24);
            assert_eq!(self.table(xsdt, b"XSDT").len(), 36 + 4 * 8);
            let fadt = self.table(self.u64(xsdt + 36), b"FACP");
            let facs = u32::from_le_bytes(fadt[36..40].try_into().unwrap());
            assert_eq!(facs % 64, 0);
            assert_eq!(self.bytes(u64::from(facs), 8), *b"FACS\x40\0\0\0");
            let dsdt = u32::from_le_bytes(fadt[40..44].try_into().unwrap());
            [
                self.table(u64::from(dsdt), b"DSDT"),
                self.table(self.u64(xsdt + 44), b"APIC"),
                self.table(self.u64(xsdt + 52), b"MCFG"),
                self.table(self.u64(xsdt + 60), b"HPET"),
                fadt,
            ]
        }
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn a_guest_finds_every_table_from_the_rsdp() {
        for vcpus in [1, 4, 300] {
            let tables = build(&config(vcpus)).unwrap();
            let [dsdt, madt, mcfg, hpet, _] = View::of(&tables).tables(tables.rsdp);
            let processors = dsdt.windows(8).filter(|w| w == b"ACPI0007").count();
            assert_eq!(processors as u32, vcpus);
            assert!(madt.len() > 8 * vcpus as usize);
            assert_eq!(mcfg[44..52], ECAM_BASE.as_u64().to_le_bytes());
            assert_eq!(hpet[44..52], Hpet::BASE.as_u64().to_le_bytes());
        }
    }

    #[test]
    fn the_largest_vm_fits_in_the_bios_area() {
        let tables = build(&config(MAX_VCPUS)).unwrap();
        let mut end = TABLES_BASE.as_u64();
        for blob in &tables.blobs {
            assert!(blob.address.as_u64() >= end);
            end = blob.address.as_u64() + blob.bytes.len() as u64;
        }
        assert!(end <= TABLES_END.as_u64());
    }

    #[test]
    fn refuses_what_it_cannot_describe() {
        for vcpus in [0, MAX_VCPUS + 1, u32::MAX] {
            assert_eq!(build(&config(vcpus)), Err(AcpiError::VcpuCount(vcpus)));
        }
    }
}
