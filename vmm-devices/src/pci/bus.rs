// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which function answers at which address.

use alloc::{collections::BTreeMap, string::String, string::ToString, sync::Arc};
use core::fmt;

use spin::RwLock;
use vmm_core::AccessWidth;

use super::{ConfigRegister, FunctionAddress, PciFunction};

/// Why the bus could not be changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PciError {
    /// The address is taken.
    Occupied {
        /// The address.
        address: FunctionAddress,
        /// Who is there.
        by: String,
        /// Who wanted to be.
        wanted_by: String,
    },
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied { address, by, wanted_by } => write!(
                f,
                "PCI address {address} is taken by {by}; give {wanted_by} another address"
            ),
        }
    }
}

impl core::error::Error for PciError {}

/// The functions of one PCI segment. Addresses without a function read as all ones, and
/// writes to them are lost.
#[derive(Default)]
pub struct PciBus {
    functions: RwLock<BTreeMap<FunctionAddress, Arc<dyn PciFunction>>>,
}

impl PciBus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a function at `address`.
    ///
    /// # Errors
    /// [`PciError::Occupied`].
    pub fn attach(
        &self,
        address: FunctionAddress,
        function: Arc<dyn PciFunction>,
    ) -> Result<(), PciError> {
        let mut functions = self.functions.write();
        if let Some(present) = functions.get(&address) {
            return Err(PciError::Occupied {
                address,
                by: present.name().to_string(),
                wanted_by: function.name().to_string(),
            });
        }
        functions.insert(address, function);
        Ok(())
    }

    /// Takes the function at `address` away.
    pub fn detach(&self, address: FunctionAddress) -> Option<Arc<dyn PciFunction>> {
        self.functions.write().remove(&address)
    }

    fn function(&self, address: FunctionAddress) -> Option<Arc<dyn PciFunction>> {
        self.functions.read().get(&address).cloned()
    }

    /// Reads `width` at `offset` (the low twelve bits) of the configuration space of the
    /// function at `address`. An access that crosses a dword is made of two.
    pub fn read(&self, address: FunctionAddress, offset: u16, width: AccessWidth) -> u64 {
        let Some(function) = self.function(address) else {
            return width.all_ones();
        };
        let mut value = 0;
        for part in parts(offset, width) {
            let dword = u64::from(function.read_config(part.register) & part.mask);
            value |= part.place(dword);
        }
        value
    }

    /// Writes the low `width` of `value` there; false if there is no function.
    pub fn write(
        &self,
        address: FunctionAddress,
        offset: u16,
        width: AccessWidth,
        value: u64,
    ) -> bool {
        let Some(function) = self.function(address) else {
            return false;
        };
        for part in parts(offset, width) {
            function.write_config(part.register, part.extract(value), part.mask);
        }
        true
    }
}

/// The share of one dword in an access.
struct Part {
    register: ConfigRegister,
    /// Which bytes of the dword are accessed.
    mask: u32,
    /// Bit of the accessed value that lies at bit 0 of the dword; negative if the access
    /// starts inside the dword.
    shift: i32,
}

impl Part {
    /// Moves bits of the dword to their place in the value.
    fn place(&self, dword: u64) -> u64 {
        if self.shift < 0 { dword >> -self.shift } else { dword << self.shift }
    }

    /// Takes the dword's bits out of the value.
    fn extract(&self, value: u64) -> u32 {
        let moved = if self.shift < 0 { value << -self.shift } else { value >> self.shift };
        moved as u32 & self.mask
    }
}

/// The dwords that an access touches; at most three.
fn parts(offset: u16, width: AccessWidth) -> impl Iterator<Item = Part> {
    let start = u64::from(offset & 0xFFF);
    let end = start + width.bytes() as u64;
    (start / 4..end.div_ceil(4)).map(move |dword| {
        let first = (dword * 4).max(start);
        let last = (dword * 4 + 4).min(end);
        let mask = ((1u64 << ((last - first) * 8)) - 1) << ((first % 4) * 8);
        let shift = (dword as i32 * 4 - start as i32) * 8;
        Part { register: ConfigRegister::containing(dword as u16 * 4), mask: mask as u32, shift }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spin::Mutex;

    use super::*;

    /// Four KiB of memory as a function.
    struct Scratch(Mutex<[u32; 1024]>);

    impl PciFunction for Scratch {
        fn name(&self) -> &str {
            "scratch"
        }

        fn read_config(&self, register: ConfigRegister) -> u32 {
            self.0.lock()[register.index()]
        }

        fn write_config(&self, register: ConfigRegister, value: u32, mask: u32) {
            let dword = &mut self.0.lock()[register.index()];
            *dword = *dword & !mask | value & mask;
        }
    }

    fn scratch() -> Arc<Scratch> {
        Arc::new(Scratch(Mutex::new([0; 1024])))
    }

    const AT: FunctionAddress = FunctionAddress::from_bits(0x18);

    #[test]
    fn nothing_answers_at_an_empty_address() {
        let bus = PciBus::new();
        assert_eq!(bus.read(AT, 0, AccessWidth::Word), 0xFFFF);
        assert_eq!(bus.read(AT, 0xFF8, AccessWidth::Qword), u64::MAX);
        assert!(!bus.write(AT, 0, AccessWidth::Dword, 0));
    }

    #[test]
    fn an_address_holds_one_function() {
        let bus = PciBus::new();
        bus.attach(AT, scratch()).unwrap();
        let error = bus.attach(AT, scratch()).unwrap_err();
        assert!(error.to_string().starts_with("PCI address 00:03.0 is taken by scratch"));
        assert!(bus.detach(AT).is_some());
        assert!(bus.detach(AT).is_none());
        bus.attach(AT, scratch()).unwrap();
    }

    proptest! {
        #[test]
        fn accesses_of_all_widths_behave_like_memory(
            accesses in prop::collection::vec((0u16..0xFF0, 0usize..4, any::<u64>()), 1..40)
        ) {
            let bus = PciBus::new();
            bus.attach(AT, scratch()).unwrap();
            let mut model = [0u8; 0x1000];
            for (offset, log_width, value) in accesses {
                let width = AccessWidth::from_bytes(1 << log_width).unwrap();
                let range = usize::from(offset)..usize::from(offset) + width.bytes();
                model[range].copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
                prop_assert!(bus.write(AT, offset, width, value));
                for near in offset.saturating_sub(3)..=offset + 3 {
                    let mut expected = [0; 8];
                    let range = usize::from(near)..usize::from(near) + width.bytes();
                    expected[..width.bytes()].copy_from_slice(&model[range]);
                    prop_assert_eq!(bus.read(AT, near, width), u64::from_le_bytes(expected));
                }
            }
        }

        #[test]
        fn no_access_panics(offset: u16, address: u16, log_width in 0usize..4, value: u64) {
            let bus = PciBus::new();
            bus.attach(FunctionAddress::from_bits(address), scratch()).unwrap();
            let width = AccessWidth::from_bytes(1 << log_width).unwrap();
            bus.write(FunctionAddress::from_bits(address), offset, width, value);
            bus.read(FunctionAddress::from_bits(address), offset, width);
        }
    }
}
