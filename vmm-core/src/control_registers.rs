// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest may load into control registers (AMD APM vol. 2, 3.1, 13.1 and 14.6; AMD APM
//! vol. 3, MOV CRn and XSETBV).

use crate::{
    GuestPhysAddr,
    cpuid::{CpuidTable, XSTATE_AVX, XSTATE_AVX512, XSTATE_SSE, XSTATE_X87},
    paging::walk::PhysicalMemory,
    state::{Exception, cr0, cr4, efer},
};

const GP: Exception = Exception::GENERAL_PROTECTION;

/// A permitted change of CR0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cr0Change {
    /// CR0 to load.
    pub cr0: u64,
    /// EFER to load: LMA follows paging.
    pub efer: u64,
    /// Translations change: cached ones must go.
    pub flush: bool,
}

/// A permitted change of CR4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cr4Change {
    /// CR4 to load.
    pub cr4: u64,
    /// Translations change: cached ones must go.
    pub flush: bool,
}

/// Checks a write of `new` to CR0 where `old` is, with this CR4 and EFER and, in `cs_long`,
/// the L attribute of CS.
///
/// # Errors
/// #GP(0).
pub fn check_cr0(
    old: u64,
    new: u64,
    cr4_value: u64,
    efer_value: u64,
    cs_long: bool,
) -> Result<Cr0Change, Exception> {
    let has = |bit: u64| new & bit != 0;
    let illegal = new >> 32 != 0 || has(cr0::PG) && !has(cr0::PE) || has(cr0::NW) && !has(cr0::CD);
    if illegal {
        return Err(GP);
    }
    let switches_paging = (old ^ new) & cr0::PG != 0;
    let mut efer_new = efer_value;
    if switches_paging && efer_value & efer::LME != 0 {
        if cs_long || has(cr0::PG) && cr4_value & cr4::PAE == 0 {
            return Err(GP);
        }
        efer_new = if has(cr0::PG) { efer_value | efer::LMA } else { efer_value & !efer::LMA };
    }
    Ok(Cr0Change {
        cr0: new & cr0::DEFINED | cr0::ET,
        efer: efer_new,
        flush: (old ^ new) & (cr0::PG | cr0::WP | cr0::PE) != 0,
    })
}

/// Checks a write of `new` to CR4 where `old` is.
///
/// # Errors
/// #GP(0).
pub fn check_cr4(
    old: u64,
    new: u64,
    efer_value: u64,
    cpuid: &CpuidTable,
) -> Result<Cr4Change, Exception> {
    let leaves_long_mode = efer_value & efer::LMA != 0 && new & cr4::PAE == 0;
    if new & !cpuid.supported_cr4() != 0 || leaves_long_mode {
        return Err(GP);
    }
    const TRANSLATION: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::SMEP | cr4::SMAP;
    Ok(Cr4Change { cr4: new, flush: (old ^ new) & TRANSLATION != 0 })
}

/// Checks a write of CR3 and returns the value to load. In long mode the bits above the
/// physical address width must be zero; outside, there are 32.
///
/// # Errors
/// #GP(0).
pub fn check_cr3(new: u64, efer_value: u64, cpuid: &CpuidTable) -> Result<u64, Exception> {
    if efer_value & efer::LMA == 0 {
        return Ok(new & 0xFFFF_FFFF);
    }
    let beyond = new.checked_shr(u32::from(cpuid.physical_address_bits())).unwrap_or(0);
    if beyond == 0 { Ok(new) } else { Err(GP) }
}

/// Checks an entry of the table that PAE paging loads its page-directory pointers from (Intel
/// SDM vol. 3, table 4-8).
///
/// # Errors
/// #GP(0) if a present entry has a reserved bit.
fn check_page_directory_pointer(entry: u64, physical_address_bits: u8) -> Result<(), Exception> {
    const PRESENT: u64 = 1;
    const RESERVED: u64 = 0x1E6;
    let beyond = entry.checked_shr(u32::from(physical_address_bits)).unwrap_or(0);
    let legal = entry & PRESENT == 0 || entry & RESERVED == 0 && beyond == 0;
    if legal { Ok(()) } else { Err(GP) }
}

/// Reads the page-directory pointers of PAE paging from the table that `cr3` names, and checks
/// them. Where there is no memory, all ones are read.
///
/// # Errors
/// #GP(0) if a present entry has a reserved bit.
pub fn load_page_directory_pointers(
    memory: &impl PhysicalMemory,
    cr3: u64,
    physical_address_bits: u8,
) -> Result<[u64; 4], Exception> {
    const TABLE: u64 = 0xFFFF_FFE0;
    let mut entries = [0; 4];
    for (entry, offset) in entries.iter_mut().zip((0..).step_by(8)) {
        let address = GuestPhysAddr::new((cr3 & TABLE) + offset);
        *entry = memory.read_u64(address).unwrap_or(u64::MAX);
        check_page_directory_pointer(*entry, physical_address_bits)?;
    }
    Ok(entries)
}

/// Checks a write of CR8: four bits.
///
/// # Errors
/// #GP(0).
pub fn check_cr8(new: u64) -> Result<u64, Exception> {
    if new <= 0xF { Ok(new) } else { Err(GP) }
}

/// Checks a write of XCR0 against the components that the model supports: x87 always on, AVX
/// only with SSE, the three AVX-512 components together and only with AVX.
///
/// # Errors
/// #GP(0).
pub fn check_xcr0(new: u64, supported: u64) -> Result<u64, Exception> {
    let has = |bits: u64| new & bits == bits;
    let wide = new & XSTATE_AVX512;
    let legal = new & !supported == 0
        && has(XSTATE_X87)
        && (new & XSTATE_AVX == 0 || has(XSTATE_SSE))
        && (wide == 0 || has(XSTATE_AVX | XSTATE_AVX512));
    if legal { Ok(new) } else { Err(GP) }
}
