// SPDX-License-Identifier: MIT OR Apache-2.0
//! HPET description table (IA-PC HPET specification 1.0a, 3.2.4).

use alloc::vec::Vec;

use acpi_tables::{
    gas::{AccessSize, AddressSpace, GAS},
    sdt::Sdt,
};

use super::build::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes_of};
use crate::Hpet;

const REVISION: u8 = 1;
const HEADER: u32 = 36;
/// There is one timer block.
const NUMBER: u8 = 0;
/// Nothing else is on the 4 KiB page of the registers.
const PAGE_IS_FREE: u8 = 1;

/// The table.
pub(super) fn build() -> Vec<u8> {
    let mut hpet = Sdt::new(*b"HPET", HEADER, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    hpet.append_slice(&Hpet::BLOCK_ID.to_le_bytes());
    // The specification leaves width and access size at zero: the registers have both.
    let registers =
        GAS::new(AddressSpace::SystemMemory, 0, 0, AccessSize::Undefined, Hpet::BASE.as_u64());
    hpet.append_slice(&bytes_of(&registers));
    hpet.append_slice(&[NUMBER]);
    hpet.append_slice(&Hpet::MINIMUM_TICKS.to_le_bytes());
    hpet.append_slice(&[PAGE_IS_FREE]);
    hpet.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_the_timer_block() {
        let table = build();
        assert_eq!(table.len(), 56);
        assert_eq!(table[36..40], 0x8086_A201u32.to_le_bytes());
        assert_eq!(table[40..44], [0; 4]);
        assert_eq!(table[44..52], 0xFED0_0000u64.to_le_bytes());
        assert_eq!(table[52..], [0, 0x10, 0x27, 1]);
    }
}
