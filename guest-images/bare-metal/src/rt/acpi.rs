// SPDX-License-Identifier: MIT OR Apache-2.0
//! ACPI tables: found from the root pointer, each with its checksum verified.

use super::start_info;

/// Bytes of physical memory.
#[derive(Clone, Copy)]
pub struct Table {
    pub address: u64,
    pub length: u32,
}

/// Length of the header that all tables but the root pointer share.
pub const HEADER: u32 = 36;
/// Longest table that is believed.
const LONGEST: u32 = 1 << 20;

fn byte(address: u64) -> u8 {
    // SAFETY: tables lie in memory below 4 GiB, which is identity-mapped; reads do no harm.
    unsafe { (address as *const u8).read_volatile() }
}

impl Table {
    /// The table at an address, by the length in its header.
    pub fn at(address: u64) -> Option<Self> {
        let mut table = Self { address, length: HEADER };
        table.length = table.u32(4)?;
        (HEADER..LONGEST).contains(&table.length).then_some(table)
    }

    pub fn u8(&self, offset: u32) -> Option<u8> {
        (offset < self.length).then(|| byte(self.address + u64::from(offset)))
    }

    pub fn u16(&self, offset: u32) -> Option<u16> {
        Some(u16::from_le_bytes([self.u8(offset)?, self.u8(offset + 1)?]))
    }

    pub fn u32(&self, offset: u32) -> Option<u32> {
        Some(u32::from(self.u16(offset)?) | u32::from(self.u16(offset + 2)?) << 16)
    }

    pub fn u64(&self, offset: u32) -> Option<u64> {
        Some(u64::from(self.u32(offset)?) | u64::from(self.u32(offset + 4)?) << 32)
    }

    pub fn signature(&self) -> [u8; 4] {
        self.u32(0).unwrap_or(0).to_le_bytes()
    }

    /// The sum of all bytes, which is to be 0.
    pub fn checksum(&self) -> u8 {
        (0..self.length).filter_map(|offset| self.u8(offset)).fold(0, u8::wrapping_add)
    }
}

/// The root pointer; revision 2 and later have the extended structure of 36 bytes.
pub fn root_pointer() -> Option<Table> {
    let address = start_info::rsdp();
    if address == 0 {
        return None;
    }
    let short = Table { address, length: 20 };
    let length = if short.u8(15)? >= 2 { 36 } else { 20 };
    Some(Table { address, length })
}

/// The table of tables, and how wide its entries are: the XSDT, else the RSDT.
pub fn root_table() -> Option<(Table, u32)> {
    let pointer = root_pointer()?;
    match pointer.u64(24) {
        Some(xsdt) if xsdt != 0 => Some((Table::at(xsdt)?, 8)),
        _ => Some((Table::at(pointer.u32(16)?.into())?, 4)),
    }
}

/// All tables that the root table lists.
pub fn tables() -> impl Iterator<Item = Table> {
    let (root, width) = root_table().unwrap_or((Table { address: 0, length: HEADER }, 8));
    (HEADER..root.length).step_by(width as usize).filter_map(move |offset| {
        let address = if width == 8 { root.u64(offset)? } else { u64::from(root.u32(offset)?) };
        Table::at(address)
    })
}

/// The first table with this signature.
pub fn table(signature: &[u8; 4]) -> Option<Table> {
    tables().find(|table| table.signature() == *signature)
}

/// The entries of a MADT: type and offset, whose length is within the table.
pub fn interrupt_structures(madt: Table) -> impl Iterator<Item = (u8, u32)> {
    let mut offset = HEADER + 8;
    core::iter::from_fn(move || {
        let here = offset;
        let (kind, length) = (madt.u8(here)?, u32::from(madt.u8(here + 1)?));
        if length < 2 || here + length > madt.length {
            return None;
        }
        offset += length;
        Some((kind, here))
    })
}

/// APIC identifiers of the CPUs that are enabled.
pub fn cpu_apic_ids() -> impl Iterator<Item = u32> {
    let madt = table(b"APIC").unwrap_or(Table { address: 0, length: HEADER });
    interrupt_structures(madt).filter_map(move |(kind, offset)| match kind {
        0 if madt.u32(offset + 4)? & 1 == 1 => madt.u8(offset + 3).map(u32::from),
        9 if madt.u32(offset + 8)? & 1 == 1 => madt.u32(offset + 4),
        _ => None,
    })
}
