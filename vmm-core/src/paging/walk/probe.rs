// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an address leads that the CPU has just used.

use super::rules::entry;
use crate::address::{GuestPhysAddr, GuestVirtAddr};

/// Reads the tables of 4-level paging at `cr3`, and does nothing else: rights and reserved bits
/// were checked, and accessed bits set, when the CPU used `address`, before its last exit. `None`
/// if they lead nowhere, since they were changed meanwhile: then [`super::translate`] tells what
/// is the matter.
///
/// `quadword` reads eight bytes at an aligned address; `None` where there is no memory.
#[inline(always)]
pub fn probe(
    cr3: u64,
    address: GuestVirtAddr,
    mut quadword: impl FnMut(GuestPhysAddr) -> Option<u64>,
) -> Option<GuestPhysAddr> {
    let address = address.as_u64();
    let mut table = cr3 & entry::ADDRESS;
    for shift in [39, 30, 21, 12] {
        let at = table + (address >> shift & 0x1FF) * 8;
        let value = quadword(GuestPhysAddr::new(at))?;
        if value & entry::PRESENT == 0 {
            return None;
        }
        table = value & entry::ADDRESS;
        let is_page = shift == 12 || shift < 39 && value & entry::LARGE != 0;
        if is_page {
            let offset = (1 << shift) - 1;
            return Some(GuestPhysAddr::new(table & !offset | address & offset));
        }
    }
    None
}
