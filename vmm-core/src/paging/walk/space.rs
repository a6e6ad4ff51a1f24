// SPDX-License-Identifier: MIT OR Apache-2.0
//! What decides about a translation besides the tables: mode, features, rights.

use super::TranslateError;
use super::rules::{Architecture, Rules, entry::ADDRESS};
use crate::state::{ControlRegisters, cr0, cr4, efer};

/// What the virtual processor model offers to paging (CPUID 0, 0x80000001 and 0x80000008).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagingFeatures {
    /// Width of a physical address in bits (MAXPHYADDR), 32 to 52.
    pub physical_address_bits: u8,
    /// 1 GiB pages exist.
    pub gigabyte_pages: bool,
    /// In 4-level paging bit 8, the global bit of pages, is reserved in entries that lead to
    /// tables, except in page directories: so it is on AMD (APM vol. 2, 5.3.3), while Intel
    /// ignores it (SDM vol. 3, 4.5.4).
    pub table_global_reserved: bool,
}

/// Everything that decides how a linear address is translated.
#[derive(Clone, Copy, Debug)]
pub struct AddressSpace {
    /// The control registers.
    pub control: ControlRegisters,
    /// RFLAGS.AC: lifts SMAP for explicit supervisor accesses.
    pub alignment_check: bool,
    /// The processor model.
    pub features: PagingFeatures,
    /// The four top entries of PAE paging as the processor loaded them together with CR3 (Intel
    /// SDM vol. 3, 4.4.1); `None` where it reads them from memory on each walk, as AMD's does
    /// under nested paging (APM vol. 2, 15.25.10).
    pub page_directory_pointers: Option<[u64; 4]>,
}

/// Kind of an access. Read-modify-write counts as a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "self-explanatory")]
pub enum AccessKind {
    Read,
    Write,
    Fetch,
}

/// On whose behalf memory is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// At CPL 3.
    User,
    /// At CPL 0 to 2.
    Supervisor,
    /// By the processor itself to a system structure (GDT, TSS, …), at any CPL.
    ImplicitSupervisor,
}

/// An access to be translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Kind.
    pub kind: AccessKind,
    /// Privilege.
    pub privilege: Privilege,
}

/// Rights of a page: those of all levels of its tables combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// R/W set at every level.
    pub write: bool,
    /// U/S set at every level.
    pub user: bool,
    /// NX at no level.
    pub execute: bool,
}

impl Rights {
    pub(in crate::paging) const ALL: Self = Self { write: true, user: true, execute: true };
}

/// Bits of the error code of #PF (AMD APM vol. 2, 8.4.2).
pub mod page_fault {
    /// The page was present: a matter of rights or of reserved bits.
    pub const PRESENT: u32 = 1 << 0;
    /// The access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// The access was made in user mode.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit was set in an entry.
    pub const RESERVED: u32 = 1 << 3;
    /// The access was an instruction fetch (where NX or SMEP is on).
    pub const FETCH: u32 = 1 << 4;
}

/// Paging structure in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Unpaged,
    Legacy32,
    Pae,
    FourLevel,
}

impl Mode {
    /// Page-directory-pointer entries of PAE paging carry neither rights nor accessed bits.
    pub fn is_pae_pointer(self, level: u8) -> bool {
        self == Self::Pae && level == 3
    }
}

impl AddressSpace {
    pub(in crate::paging) fn mode(&self) -> Result<Mode, TranslateError> {
        let control = &self.control;
        if control.cr0 & cr0::PG == 0 {
            return Ok(Mode::Unpaged);
        }
        if control.efer & efer::LMA != 0 {
            if control.cr4 & (cr4::LA57 | cr4::PKE) != 0 {
                return Err(TranslateError::UnsupportedMode);
            }
            return Ok(Mode::FourLevel);
        }
        Ok(if control.cr4 & cr4::PAE != 0 { Mode::Pae } else { Mode::Legacy32 })
    }

    pub(in crate::paging) fn no_execute_enabled(&self) -> bool {
        self.control.efer & efer::NXE != 0 && self.control.cr4 & cr4::PAE != 0
    }

    /// Bits of an address field that lie above the physical address width.
    pub(in crate::paging) fn beyond_physical(&self) -> u64 {
        let width = u32::from(self.features.physical_address_bits.clamp(32, 52));
        ADDRESS & !((1 << width) - 1)
    }

    /// Error code of an access that a page's rights forbid.
    pub(crate) fn protection_fault(&self, access: Access) -> u32 {
        Architecture::error_code(self, access, page_fault::PRESENT)
    }
}
