// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second page walker, written from the manuals' tables: it first lists the entries on the
//! way, then applies each rule to the list.

use super::memory::Sparse;
use crate::paging::walk::{Access, AccessKind, AddressSpace, Privilege};

/// A translation: address, page size, (write, user, execute), and memory afterwards.
pub struct Answer {
    pub address: u64,
    pub page: u64,
    pub rights: (bool, bool, bool),
    pub updates: Vec<(u64, u64, u64)>,
}

#[derive(Clone, Copy)]
struct Entry {
    at: u64,
    value: u64,
    bytes: u64,
    /// Bytes it maps if it is the last.
    covers: u64,
    /// Has R/W, U/S and A bits.
    has_rights: bool,
    large: bool,
}

fn bit(value: u64, number: u32) -> bool {
    (value >> number) & 1 == 1
}

fn bits(value: u64, high: u32, low: u32) -> u64 {
    (value >> low) & ((1 << (high - low + 1)) - 1)
}

struct Setup {
    legacy: bool,
    pae: bool,
    nx: bool,
    pse: bool,
    smep: bool,
    smap: bool,
    wp: bool,
    width: u32,
    gigabyte: bool,
}

fn setup(space: &AddressSpace) -> Setup {
    let control = &space.control;
    let long = bit(control.efer, 10);
    let pae = bit(control.cr4, 5);
    Setup {
        legacy: !pae,
        pae: pae && !long,
        nx: pae && bit(control.efer, 11),
        pse: bit(control.cr4, 4),
        smep: bit(control.cr4, 20),
        smap: bit(control.cr4, 21),
        wp: bit(control.cr0, 16),
        width: u32::from(space.features.physical_address_bits),
        gigabyte: space.features.gigabyte_pages,
    }
}

/// The entries from the top to the last one that is present, or the page.
fn entries(memory: &Sparse, setup: &Setup, cr3: u64, address: u64) -> Vec<Entry> {
    let bytes = if setup.legacy { 4 } else { 8 };
    // Highest and lowest address bit that index each table.
    let indices: &[(u32, u32)] = match (setup.legacy, setup.pae) {
        (true, _) => &[(31, 22), (21, 12)],
        (_, true) => &[(31, 30), (29, 21), (20, 12)],
        _ => &[(47, 39), (38, 30), (29, 21), (20, 12)],
    };
    let mut table = if setup.pae { bits(cr3, 31, 5) << 5 } else { bits(cr3, 51, 12) << 12 };
    let mut found = Vec::new();
    for &(high, low) in indices {
        let at = table + bits(address, high, low) * bytes;
        let all_ones = if bytes == 4 { 0xFFFF_FFFF } else { u64::MAX };
        let value = memory.load(at, bytes).unwrap_or(all_ones);
        let may_be_large = match low {
            22 => setup.pse,
            21 => true,
            30 => !setup.pae && setup.gigabyte,
            _ => false,
        };
        let large = may_be_large && bit(value, 7);
        let has_rights = !(setup.pae && low == 30);
        found.push(Entry { at, value, bytes, covers: 1 << low, has_rights, large });
        if !bit(value, 0) || large {
            break;
        }
        table = if bytes == 4 { bits(value, 31, 12) << 12 } else { bits(value, 51, 12) << 12 };
    }
    found
}

/// True if a bit that must be zero is set (AMD APM vol. 2, figures 5-4 to 5-27; Intel SDM
/// vol. 3, 4.3 to 4.5).
// Bit 5 of the top entries of PAE paging is left out, as the walker says.
fn violates_reserved(setup: &Setup, entry: &Entry) -> bool {
    let v = entry.value;
    if setup.legacy {
        let above = setup.width.min(40) - 32;
        return entry.large && (bits(v, 21, 13) >> above) != 0;
    }
    let too_wide = setup.width < 52 && bits(v, 51, setup.width) != 0;
    if !entry.has_rights {
        return too_wide || bits(v, 63, 52) != 0 || bits(v, 2, 1) != 0 || bits(v, 8, 6) != 0;
    }
    let top = (bit(v, 63) && !setup.nx) || (setup.pae && bits(v, 62, 52) != 0);
    let size = match entry.covers {
        0x8000_0000.. => bit(v, 7),
        0x4000_0000 if entry.large => bits(v, 29, 13) != 0,
        0x4000_0000 => bit(v, 7),
        0x20_0000 if entry.large => bits(v, 20, 13) != 0,
        _ => false,
    };
    too_wide || top || size
}

fn allowed(
    setup: &Setup,
    space: &AddressSpace,
    rights: (bool, bool, bool),
    access: Access,
) -> bool {
    let (write, user, execute) = rights;
    match (access.privilege, access.kind) {
        (Privilege::User, AccessKind::Read) => user,
        (Privilege::User, AccessKind::Write) => user && write,
        (Privilege::User, AccessKind::Fetch) => user && execute,
        (_, AccessKind::Fetch) => execute && !(setup.smep && user),
        (privilege, kind) => {
            let ac = space.alignment_check && privilege != Privilege::ImplicitSupervisor;
            let smap = setup.smap && user && !ac;
            !smap && (kind == AccessKind::Read || write || !setup.wp)
        }
    }
}

/// Translates as a processor would; the error is the code of #PF.
pub fn walk(
    memory: &Sparse,
    space: &AddressSpace,
    address: u64,
    access: Access,
) -> Result<Answer, u32> {
    let setup = setup(space);
    let path = entries(memory, &setup, space.control.cr3, address);
    let write = access.kind == AccessKind::Write;
    let fetch = access.kind == AccessKind::Fetch && (setup.nx || setup.smep);
    let user = access.privilege == Privilege::User;
    let code = u32::from(write) << 1 | u32::from(user) << 2 | u32::from(fetch) << 4;
    for entry in &path {
        if !bit(entry.value, 0) {
            return Err(code);
        }
        if violates_reserved(&setup, entry) {
            return Err(code | 1 | 8);
        }
    }
    let with_rights: Vec<&Entry> = path.iter().filter(|entry| entry.has_rights).collect();
    let every = |number| with_rights.iter().all(|entry| bit(entry.value, number));
    let none = |number| with_rights.iter().all(|entry| !bit(entry.value, number));
    let rights = (every(1), every(2), setup.legacy || none(63));
    if !allowed(&setup, space, rights, access) {
        return Err(code | 1);
    }
    let last = path.last().unwrap();
    let mut frame = if setup.legacy { bits(last.value, 31, 12) } else { bits(last.value, 51, 12) };
    frame <<= 12;
    if setup.legacy && last.large {
        frame |= bits(last.value, 20, 13) << 32;
    }
    let updates = with_rights.iter().map(|entry| {
        let dirty = u64::from(write && entry.at == last.at) << 6;
        (entry.at, entry.bytes, entry.value | 1 << 5 | dirty)
    });
    Ok(Answer {
        address: frame / last.covers * last.covers + address % last.covers,
        page: last.covers,
        rights,
        updates: updates.collect(),
    })
}
