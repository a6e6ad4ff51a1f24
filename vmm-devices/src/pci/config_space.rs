// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration space of an emulated function, as registers with writable bits.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::ConfigRegister;

/// Dwords of the space of a conventional PCI function: 256 bytes.
const REGISTERS: usize = 64;

/// The 256-byte configuration space of a conventional PCI function: values, and which of
/// their bits software can change. Beyond it everything reads as zero.
#[derive(Clone)]
pub struct ConfigSpace {
    values: [u32; REGISTERS],
    writable: [u32; REGISTERS],
}

/// What is to be saved of a [`ConfigSpace`]: its dwords from the first to the last that has a
/// writable bit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConfigSpaceState {
    /// The values.
    pub registers: Vec<u32>,
}

impl Default for ConfigSpace {
    fn default() -> Self {
        Self { values: [0; REGISTERS], writable: [0; REGISTERS] }
    }
}

impl ConfigSpace {
    /// The same space with a value and writable bits in the dword that holds `offset`.
    pub fn with(mut self, offset: u16, value: u32, writable: u32) -> Self {
        let index = ConfigRegister::containing(offset).index();
        if let (Some(v), Some(w)) = (self.values.get_mut(index), self.writable.get_mut(index)) {
            (*v, *w) = (value, writable);
        }
        self
    }

    /// Reads a dword.
    pub fn read(&self, register: ConfigRegister) -> u32 {
        self.values.get(register.index()).copied().unwrap_or(0)
    }

    /// Writes the writable bits that `mask` selects.
    pub fn write(&mut self, register: ConfigRegister, value: u32, mask: u32) {
        let index = register.index();
        if let (Some(v), Some(w)) = (self.values.get_mut(index), self.writable.get(index)) {
            let mask = mask & w;
            *v = *v & !mask | value & mask;
        }
    }

    /// Takes the state out.
    pub fn save(&self) -> ConfigSpaceState {
        let used = self.writable.iter().rposition(|&bits| bits != 0).map_or(0, |last| last + 1);
        ConfigSpaceState { registers: self.values[..used].to_vec() }
    }

    /// Puts a state back: the writable bits of the registers it has.
    pub fn restore(&mut self, state: &ConfigSpaceState) {
        for ((v, w), saved) in self.values.iter_mut().zip(&self.writable).zip(&state.registers) {
            *v = *v & !w | saved & w;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: ConfigRegister = ConfigRegister::containing(8);

    #[test]
    fn only_writable_and_selected_bits_change() {
        let mut space = ConfigSpace::default().with(8, 0x1122_3344, 0x00FF_FF00);
        space.write(REGISTER, 0xAABB_CCDD, 0xFF00_FFFF);
        assert_eq!(space.read(REGISTER), 0x1122_CC44);
        let beyond = ConfigRegister::containing(0x100);
        space.write(beyond, u32::MAX, u32::MAX);
        assert_eq!(space.read(beyond), 0);
    }

    #[test]
    fn restoring_cannot_change_what_software_cannot() {
        let mut space = ConfigSpace::default().with(8, 0x1122_3344, 0xFF);
        let saved = space.save();
        assert_eq!(saved.registers, [0, 0, 0x1122_3344]);
        space.restore(&ConfigSpaceState { registers: [u32::MAX; 100].to_vec() });
        assert_eq!(space.read(REGISTER), 0x1122_33FF);
        space.restore(&saved);
        assert_eq!(space.read(REGISTER), 0x1122_3344);
    }
}
