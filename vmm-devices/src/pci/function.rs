// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI function and how it is addressed.

use core::fmt;

/// Bus, device and function number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionAddress(u16);

impl FunctionAddress {
    /// The host bridge's: 00:00.0.
    pub const HOST_BRIDGE: Self = Self(0);

    /// Function `function` (0–7) of device `device` (0–31) on `bus`; `None` if out of range.
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self((bus as u16) << 8 | (device as u16) << 3 | function as u16))
    }

    /// From the 16-bit form: bus in bits 15–8, device in 7–3, function in 2–0.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Bus number.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device number, 0–31.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 31
    }

    /// Function number, 0–7.
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }
}

impl fmt::Display for FunctionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

impl fmt::Debug for FunctionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the 1024 dwords of a function's configuration space (4 KiB).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConfigRegister(u16);

impl ConfigRegister {
    /// The dword that holds the byte at `offset`, of which the low twelve bits count.
    pub const fn containing(offset: u16) -> Self {
        Self(offset >> 2 & 0x3FF)
    }

    /// Index of the dword, 0–1023.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A PCI function, reached through its configuration space.
///
/// As on the bus itself, every access is to a dword with byte enables; narrower and unaligned
/// accesses have been turned into such before.
pub trait PciFunction: Send + Sync {
    /// Name for messages and for the report.
    fn name(&self) -> &str;

    /// Reads a dword; registers that do not exist read as zero.
    fn read_config(&self, register: ConfigRegister) -> u32;

    /// Writes those bytes of `value` whose bytes in `mask` are 0xFF; the others are 0x00.
    fn write_config(&self, register: ConfigRegister, value: u32, mask: u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_apart_what_they_were_made_of() {
        let address = FunctionAddress::new(0xAB, 31, 7).unwrap();
        assert_eq!((address.bus(), address.device(), address.function()), (0xAB, 31, 7));
        assert_eq!(address, FunctionAddress::from_bits(0xABFF));
        assert_eq!(format!("{address}"), "ab:1f.7");
        assert_eq!(FunctionAddress::new(0, 32, 0), None);
        assert_eq!(FunctionAddress::new(0, 0, 8), None);
    }

    #[test]
    fn no_offset_names_a_register_beyond_the_space() {
        for offset in [0, 3, 4, 0xFFF, 0x1000, u16::MAX] {
            assert_eq!(ConfigRegister::containing(offset).index(), usize::from(offset) / 4 % 1024);
        }
    }
}
