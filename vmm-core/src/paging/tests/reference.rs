// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second page walker, written from the manuals' figures: one function for each paging mode,
//! each entry of each table by itself, and the rules of access as one table of cases.

use super::memory::Sparse;
use crate::paging::walk::{Access, AccessKind, AddressSpace, Privilege};

/// A page that may be accessed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    pub address: u64,
    pub size: u64,
    /// R/W, U/S and not NX.
    pub rights: (bool, bool, bool),
    pub dirty: bool,
    pub global: bool,
    /// Address of an entry, its size, and the bits that are to be set in it.
    pub marks: Vec<(u64, u64, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Page(Page),
    Fault(u32),
    NonCanonical,
}

/// Bits `high` to `low` of a value, as the manuals write them.
fn field(value: u64, high: u32, low: u32) -> u64 {
    let mut result = 0;
    for bit in (low..=high).rev() {
        result = result * 2 + (value >> bit) % 2;
    }
    result
}

fn bit(value: u64, number: u32) -> bool {
    field(value, number, number) == 1
}

/// A walk by the figures of Intel SDM vol. 3, 4.3 to 4.5, and AMD APM vol. 2, 5.2 and 5.3.
pub fn walk(memory: &Sparse, space: &AddressSpace, address: u64, access: Access) -> Outcome {
    let (long_mode, pae) = (bit(space.control.efer, 10), bit(space.control.cr4, 5));
    let reference = Reference { memory, space, access };
    let found = match (long_mode, pae) {
        (true, _) if !matches!(field(address, 63, 47), 0 | 0x1_FFFF) => {
            return Outcome::NonCanonical;
        }
        (true, _) => reference.four_level(address),
        (false, true) => reference.pae(address % 0x1_0000_0000),
        (false, false) => reference.legacy(address % 0x1_0000_0000),
    };
    found.map_or_else(Outcome::Fault, Outcome::Page)
}

struct Reference<'a> {
    memory: &'a Sparse,
    space: &'a AddressSpace,
    access: Access,
}

impl Reference<'_> {
    /// Intel SDM vol. 3, 4.3, tables 4-4 to 4-6.
    fn legacy(&self, linear: u64) -> Result<Page, u32> {
        let directory = field(self.space.control.cr3, 31, 12) * 0x1000;
        let pde_at = directory + field(linear, 31, 22) * 4;
        let pde = self.memory.load(pde_at, 4).unwrap_or(0xFFFF_FFFF);
        if !bit(pde, 0) {
            return Err(self.absent());
        }
        let pse = bit(self.space.control.cr4, 4);
        if pse && bit(pde, 7) {
            let m = u32::from(self.space.features.physical_address_bits).min(40);
            if field(pde, 21, m - 19) != 0 {
                return Err(self.reserved());
            }
            let rights = (bit(pde, 1), bit(pde, 2), true);
            self.judge(rights)?;
            return Ok(Page {
                address: field(pde, 20, 13) << 32 | field(pde, 31, 22) << 22 | field(linear, 21, 0),
                size: 4 << 20,
                rights,
                dirty: bit(pde, 6) || self.is_write(),
                global: bit(pde, 8),
                marks: vec![(pde_at, 4, self.page_marks())],
            });
        }
        let pte_at = field(pde, 31, 12) * 0x1000 + field(linear, 21, 12) * 4;
        let pte = self.memory.load(pte_at, 4).unwrap_or(0xFFFF_FFFF);
        if !bit(pte, 0) {
            return Err(self.absent());
        }
        let rights = (bit(pde, 1) && bit(pte, 1), bit(pde, 2) && bit(pte, 2), true);
        self.judge(rights)?;
        Ok(Page {
            address: field(pte, 31, 12) << 12 | field(linear, 11, 0),
            size: 4 << 10,
            rights,
            dirty: bit(pte, 6) || self.is_write(),
            global: bit(pte, 8),
            marks: vec![(pde_at, 4, 0x20), (pte_at, 4, self.page_marks())],
        })
    }

    /// Intel SDM vol. 3, 4.4, tables 4-8 to 4-11.
    fn pae(&self, linear: u64) -> Result<Page, u32> {
        let pdpt = field(self.space.control.cr3, 31, 5) * 0x20;
        let number = field(linear, 31, 30);
        let pdpte = match self.space.page_directory_pointers {
            Some(registers) => registers[number as usize],
            None => self.memory.load(pdpt + number * 8, 8).unwrap_or(u64::MAX),
        };
        if !bit(pdpte, 0) {
            return Err(self.absent());
        }
        // Bit 5 is reserved, too, but the walker lets it through and says why.
        let clean = field(pdpte, 2, 1) == 0 && field(pdpte, 8, 6) == 0;
        if !clean || field(pdpte, 63, 52) != 0 || self.too_wide(pdpte) {
            return Err(self.reserved());
        }
        let pde_at = field(pdpte, 51, 12) * 0x1000 + field(linear, 29, 21) * 8;
        let pde = self.memory.load(pde_at, 8).unwrap_or(u64::MAX);
        if !bit(pde, 0) {
            return Err(self.absent());
        }
        if field(pde, 62, 52) != 0 || self.too_wide(pde) || bit(pde, 63) && !self.nxe() {
            return Err(self.reserved());
        }
        if bit(pde, 7) {
            if field(pde, 20, 13) != 0 {
                return Err(self.reserved());
            }
            let rights = (bit(pde, 1), bit(pde, 2), !bit(pde, 63));
            self.judge(rights)?;
            return Ok(Page {
                address: field(pde, 51, 21) << 21 | field(linear, 20, 0),
                size: 2 << 20,
                rights,
                dirty: bit(pde, 6) || self.is_write(),
                global: bit(pde, 8),
                marks: vec![(pde_at, 8, self.page_marks())],
            });
        }
        let pte_at = field(pde, 51, 12) * 0x1000 + field(linear, 20, 12) * 8;
        let pte = self.memory.load(pte_at, 8).unwrap_or(u64::MAX);
        if !bit(pte, 0) {
            return Err(self.absent());
        }
        if field(pte, 62, 52) != 0 || self.too_wide(pte) || bit(pte, 63) && !self.nxe() {
            return Err(self.reserved());
        }
        let rights = (
            bit(pde, 1) && bit(pte, 1),
            bit(pde, 2) && bit(pte, 2),
            !(bit(pde, 63) || bit(pte, 63)),
        );
        self.judge(rights)?;
        Ok(Page {
            address: field(pte, 51, 12) << 12 | field(linear, 11, 0),
            size: 4 << 10,
            rights,
            dirty: bit(pte, 6) || self.is_write(),
            global: bit(pte, 8),
            marks: vec![(pde_at, 8, 0x20), (pte_at, 8, self.page_marks())],
        })
    }

    /// Intel SDM vol. 3, 4.5, tables 4-15 to 4-20; AMD APM vol. 2, figures 5-18 to 5-27.
    fn four_level(&self, linear: u64) -> Result<Page, u32> {
        let amd = self.space.features.table_global_reserved;
        let pml4e_at = field(self.space.control.cr3, 51, 12) * 0x1000 + field(linear, 47, 39) * 8;
        let pml4e = self.memory.load(pml4e_at, 8).unwrap_or(u64::MAX);
        if !bit(pml4e, 0) {
            return Err(self.absent());
        }
        if bit(pml4e, 7)
            || bit(pml4e, 8) && amd
            || bit(pml4e, 63) && !self.nxe()
            || self.too_wide(pml4e)
        {
            return Err(self.reserved());
        }
        let pdpte_at = field(pml4e, 51, 12) * 0x1000 + field(linear, 38, 30) * 8;
        let pdpte = self.memory.load(pdpte_at, 8).unwrap_or(u64::MAX);
        if !bit(pdpte, 0) {
            return Err(self.absent());
        }
        if bit(pdpte, 63) && !self.nxe() || self.too_wide(pdpte) {
            return Err(self.reserved());
        }
        let mut rights = (
            bit(pml4e, 1) && bit(pdpte, 1),
            bit(pml4e, 2) && bit(pdpte, 2),
            !bit(pml4e, 63) && !bit(pdpte, 63),
        );
        if bit(pdpte, 7) {
            if !self.space.features.gigabyte_pages || field(pdpte, 29, 13) != 0 {
                return Err(self.reserved());
            }
            self.judge(rights)?;
            return Ok(Page {
                address: field(pdpte, 51, 30) << 30 | field(linear, 29, 0),
                size: 1 << 30,
                rights,
                dirty: bit(pdpte, 6) || self.is_write(),
                global: bit(pdpte, 8),
                marks: vec![(pml4e_at, 8, 0x20), (pdpte_at, 8, self.page_marks())],
            });
        }
        if bit(pdpte, 8) && amd {
            return Err(self.reserved());
        }
        let pde_at = field(pdpte, 51, 12) * 0x1000 + field(linear, 29, 21) * 8;
        let pde = self.memory.load(pde_at, 8).unwrap_or(u64::MAX);
        if !bit(pde, 0) {
            return Err(self.absent());
        }
        if bit(pde, 63) && !self.nxe() || self.too_wide(pde) {
            return Err(self.reserved());
        }
        rights.0 &= bit(pde, 1);
        rights.1 &= bit(pde, 2);
        rights.2 &= !bit(pde, 63);
        if bit(pde, 7) {
            if field(pde, 20, 13) != 0 {
                return Err(self.reserved());
            }
            self.judge(rights)?;
            return Ok(Page {
                address: field(pde, 51, 21) << 21 | field(linear, 20, 0),
                size: 2 << 20,
                rights,
                dirty: bit(pde, 6) || self.is_write(),
                global: bit(pde, 8),
                marks: vec![
                    (pml4e_at, 8, 0x20),
                    (pdpte_at, 8, 0x20),
                    (pde_at, 8, self.page_marks()),
                ],
            });
        }
        let pte_at = field(pde, 51, 12) * 0x1000 + field(linear, 20, 12) * 8;
        let pte = self.memory.load(pte_at, 8).unwrap_or(u64::MAX);
        if !bit(pte, 0) {
            return Err(self.absent());
        }
        if bit(pte, 63) && !self.nxe() || self.too_wide(pte) {
            return Err(self.reserved());
        }
        rights.0 &= bit(pte, 1);
        rights.1 &= bit(pte, 2);
        rights.2 &= !bit(pte, 63);
        self.judge(rights)?;
        Ok(Page {
            address: field(pte, 51, 12) << 12 | field(linear, 11, 0),
            size: 4 << 10,
            rights,
            dirty: bit(pte, 6) || self.is_write(),
            global: bit(pte, 8),
            marks: vec![
                (pml4e_at, 8, 0x20),
                (pdpte_at, 8, 0x20),
                (pde_at, 8, 0x20),
                (pte_at, 8, self.page_marks()),
            ],
        })
    }

    /// Accesses that are permitted (Intel SDM vol. 3, 4.6.1).
    fn judge(&self, (writable, user_page, executable): (bool, bool, bool)) -> Result<(), u32> {
        let control = &self.space.control;
        let (wp, smep, smap) = (bit(control.cr0, 16), bit(control.cr4, 20), bit(control.cr4, 21));
        let ac = self.space.alignment_check;
        let permitted = match (self.access.privilege, self.access.kind, user_page) {
            (Privilege::User, _, false) => false,
            (Privilege::User, AccessKind::Read, true) => true,
            (Privilege::User, AccessKind::Write, true) => writable,
            (Privilege::User, AccessKind::Fetch, true) => executable,
            (_, AccessKind::Fetch, true) => executable && !smep,
            (_, AccessKind::Fetch, false) => executable,
            (_, AccessKind::Read, false) => true,
            (_, AccessKind::Write, false) => writable || !wp,
            (Privilege::Supervisor, AccessKind::Read, true) => !smap || ac,
            (Privilege::Supervisor, AccessKind::Write, true) => (!smap || ac) && (writable || !wp),
            (Privilege::ImplicitSupervisor, AccessKind::Read, true) => !smap,
            (Privilege::ImplicitSupervisor, AccessKind::Write, true) => !smap && (writable || !wp),
        };
        if permitted { Ok(()) } else { Err(self.code() + 1) }
    }

    fn absent(&self) -> u32 {
        self.code()
    }

    fn reserved(&self) -> u32 {
        self.code() + 8 + 1
    }

    /// The bits of the error code that tell of the access (Intel SDM vol. 3, 4.7).
    fn code(&self) -> u32 {
        let user = if self.access.privilege == Privilege::User { 4 } else { 0 };
        user + match self.access.kind {
            AccessKind::Read => 0,
            AccessKind::Write => 2,
            AccessKind::Fetch if self.nxe() || bit(self.space.control.cr4, 20) => 16,
            AccessKind::Fetch => 0,
        }
    }

    fn nxe(&self) -> bool {
        bit(self.space.control.efer, 11) && bit(self.space.control.cr4, 5)
    }

    fn too_wide(&self, entry: u64) -> bool {
        let width = u32::from(self.space.features.physical_address_bits);
        width < 52 && field(entry, 51, width) != 0
    }

    fn is_write(&self) -> bool {
        self.access.kind == AccessKind::Write
    }

    fn page_marks(&self) -> u64 {
        if self.is_write() { 0x60 } else { 0x20 }
    }
}
