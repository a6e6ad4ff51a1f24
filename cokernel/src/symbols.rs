// SPDX-License-Identifier: MIT OR Apache-2.0
//! The symbol table inside the image.
//!
//! The linker leaves an empty table in the image's last segment. After linking, the
//! `embed-symbols` tool replaces it by one built from the ELF symbols, so that backtraces have
//! names however the image was booted.
//!
//! Format, little endian: the magic number and the length in bytes of the whole table (two
//! `u64`), the address to which offsets are relative (`u64`), the number of symbols (`u64`),
//! for each symbol in order of addresses its offset and the end of its name (two `u32`), and
//! the names in one piece of UTF-8.

use crate::address::{read_u32, read_u64};

/// First eight bytes of a table.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ALCZSYMS");
/// Bytes before the symbols.
pub const HEADER_BYTES: usize = 32;
const SYMBOL_BYTES: usize = 8;

/// Encodes `symbols`, sorted by address and none below `base`. Symbols farther than 4 GiB
/// from `base` are left out.
pub fn encode(base: u64, symbols: &[(u64, alloc::string::String)]) -> alloc::vec::Vec<u8> {
    let mut entries = alloc::vec::Vec::new();
    let mut names = alloc::vec::Vec::new();
    for (address, name) in symbols {
        let offset = address.checked_sub(base).and_then(|offset| u32::try_from(offset).ok());
        let end = u32::try_from(names.len() + name.len()).ok();
        if let (Some(offset), Some(end)) = (offset, end) {
            names.extend_from_slice(name.as_bytes());
            entries.extend_from_slice(&offset.to_le_bytes());
            entries.extend_from_slice(&end.to_le_bytes());
        }
    }
    let length = HEADER_BYTES + entries.len() + names.len();
    let count = entries.len() / SYMBOL_BYTES;
    let mut table = alloc::vec::Vec::with_capacity(length);
    for word in [MAGIC, length as u64, base, count as u64] {
        table.extend_from_slice(&word.to_le_bytes());
    }
    table.extend_from_slice(&entries);
    table.extend_from_slice(&names);
    table
}

/// The last symbol at or below `address`, and how far `address` is beyond it.
pub fn find(table: &[u8], address: u64) -> Option<(&str, u64)> {
    let base = read_u64(table, 16)?;
    let count = usize::try_from(read_u64(table, 24)?).ok()?;
    let entries = table.get(HEADER_BYTES..)?.get(..count.checked_mul(SYMBOL_BYTES)?)?;
    let offset = u32::try_from(address.checked_sub(base)?).ok()?;
    let symbol = |i: usize| read_u32(entries, i * SYMBOL_BYTES);
    let name_end = |i: usize| read_u32(entries, i * SYMBOL_BYTES + 4).map(|end| end as usize);
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if symbol(middle)? <= offset { low = middle + 1 } else { high = middle }
    }
    let found = low.checked_sub(1)?;
    let name_start = found.checked_sub(1).map_or(Some(0), name_end)?;
    let names = table.get(HEADER_BYTES + count * SYMBOL_BYTES..)?;
    let name = core::str::from_utf8(names.get(name_start..name_end(found)?)?).ok()?;
    Some((name, u64::from(offset - symbol(found)?)))
}

#[cfg(target_os = "none")]
mod embedded {
    use super::{HEADER_BYTES, MAGIC, find};
    use crate::address::read_u64;

    #[unsafe(link_section = ".symbols")]
    #[used]
    static EMPTY_TABLE: [u64; 4] = [MAGIC, HEADER_BYTES as u64, 0, 0];

    unsafe extern "C" {
        static __symbols: u8;
    }

    /// Length of the table in bytes.
    pub(crate) fn embedded_bytes() -> u64 {
        // SAFETY: the linker script places the header there; it may have been replaced after
        // compilation, hence the volatile read.
        let header = unsafe { (&raw const __symbols).cast::<[u64; 2]>().read_volatile() };
        if header[0] == MAGIC { header[1] } else { 0 }
    }

    /// The name of the function around `address` and the offset in it.
    pub(crate) fn lookup(address: u64) -> Option<(&'static str, u64)> {
        let start = &raw const __symbols;
        // SAFETY: the loader placed the whole table there, and it is mapped read-only.
        let table = unsafe { core::slice::from_raw_parts(start, embedded_bytes() as usize) };
        let base = read_u64(table, 16)?;
        // Nothing behind the table's start is code.
        (base..start as u64).contains(&address).then(|| find(table, address))?
    }
}

#[cfg(target_os = "none")]
pub(crate) use embedded::{embedded_bytes, lookup};

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec::Vec};

    use super::*;

    fn table() -> Vec<u8> {
        let symbols = [(0x1010, "alpha"), (0x1020, "beta"), (0x1040, "gamma")];
        encode(0x1000, &symbols.map(|(a, n)| (a, String::from(n))))
    }

    #[test]
    fn nearest_symbol_below() {
        let table = table();
        assert_eq!(read_u64(&table, 8), Some(table.len() as u64));
        assert_eq!(find(&table, 0x100F), None);
        assert_eq!(find(&table, 0x1010), Some(("alpha", 0)));
        assert_eq!(find(&table, 0x103F), Some(("beta", 0x1F)));
        assert_eq!(find(&table, 0x2000), Some(("gamma", 0xFC0)));
        assert_eq!(find(&table, 0xFFF), None);
    }

    #[test]
    fn damaged_tables_find_nothing_and_do_not_panic() {
        let table = table();
        for length in 0..table.len() {
            let _ = find(&table[..length], 0x1044);
        }
        let mut huge = table.clone();
        huge[24..32].fill(0xFF);
        assert_eq!(find(&huge, 0x1010), None);
    }
}
