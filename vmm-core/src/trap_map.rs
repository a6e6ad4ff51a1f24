// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps of what makes a guest exit: everything, unless its bit is cleared.

use host_iface::{Host, HostError, HostPhysAddr, PageRequest};

use crate::memory::OwnedPages;

/// A bitmap of ports or MSRs in the format of the hardware; a set bit traps.
pub struct TrapMap(OwnedPages);

impl TrapMap {
    /// A map of `pages` pages in which everything traps.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host, pages: u64) -> Result<Self, HostError> {
        let map = OwnedPages::allocate(host, PageRequest::contiguous(pages))?;
        map.fill(0xFF);
        Ok(Self(map))
    }

    /// Lets through what `bit`, counted from the start of the map, stands for. A bit beyond the
    /// map changes nothing. No guest runs with a map that is still being built.
    pub fn let_through(&mut self, bit: usize) {
        if bit / 8 >= self.0.bytes() {
            return;
        }
        // SAFETY: the byte is inside the pages, which are ours, and `self` is borrowed
        // exclusively.
        unsafe {
            let byte = self.0.as_ptr().add(bit / 8);
            byte.write(byte.read() & !(1 << (bit % 8)));
        }
    }

    /// Physical address of the map.
    pub fn address(&self) -> HostPhysAddr {
        self.0.address()
    }
}

#[cfg(test)]
impl TrapMap {
    /// True if what `bit` stands for traps.
    pub fn traps(&self, bit: usize) -> bool {
        assert!(bit / 8 < self.0.bytes());
        // SAFETY: inside the pages, which nobody writes meanwhile.
        let byte = unsafe { self.0.as_ptr().add(bit / 8).read() };
        byte >> (bit % 8) & 1 != 0
    }

    /// Number of bits that do not trap.
    pub fn open(&self) -> usize {
        (0..self.0.bytes() * 8).filter(|&bit| !self.traps(bit)).count()
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;

    #[test]
    fn only_named_bits_inside_the_map_are_let_through() {
        let mut map = TrapMap::new(MockHost::leak(1), 1).unwrap();
        assert_eq!(map.open(), 0);
        for bit in [0, 4096 * 8 - 1, 4096 * 8, usize::MAX] {
            map.let_through(bit);
        }
        assert_eq!(map.open(), 2);
        assert!(!map.traps(0) && map.traps(1) && !map.traps(4096 * 8 - 1));
    }

    #[test]
    fn each_bit_opens_itself_alone() {
        let mut map = TrapMap::new(MockHost::leak(1), 1).unwrap();
        for bit in 0..4096 * 8 {
            assert!(map.traps(bit), "{bit} is open too early");
            map.let_through(bit);
            assert!(!map.traps(bit), "{bit} stays closed");
        }
        assert_eq!(map.open(), 4096 * 8);
    }
}
