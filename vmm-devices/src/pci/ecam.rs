// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory-mapped configuration access (PCI Express 5.0, 7.2.2).

use alloc::sync::Arc;

use vmm_core::{AccessWidth, GuestPhysAddr, MmioDevice};

use super::{FunctionAddress, PciBus};

/// Where the window lies.
pub const ECAM_BASE: GuestPhysAddr = GuestPhysAddr::new(0xE000_0000);

/// Last bus of the window. Linux looks at every device of every bus that the window has, each
/// look an exit, so there are as many as bridges may need and not 256.
pub const LAST_BUS: u8 = 15;

/// Its length in bytes: 4 KiB for each of the 256 functions of each bus.
pub const ECAM_BYTES: u64 = (LAST_BUS as u64 + 1) << 20;

/// The memory-mapped window to the configuration space of all functions of a bus.
pub struct Ecam {
    bus: Arc<PciBus>,
}

impl Ecam {
    /// A window to `bus`.
    pub fn new(bus: Arc<PciBus>) -> Self {
        Self { bus }
    }
}

/// Function, and offset in its space. An access across the end of the space of one function
/// would belong to two and gets no answer.
fn decode(offset: u64, width: AccessWidth) -> Option<(FunctionAddress, u16)> {
    let function = u16::try_from(offset >> 12).ok().filter(|_| offset < ECAM_BYTES)?;
    let register = (offset & 0xFFF) as u16;
    let fits = usize::from(register) + width.bytes() <= 0x1000;
    fits.then_some((FunctionAddress::from_bits(function), register))
}

impl MmioDevice for Ecam {
    fn name(&self) -> &str {
        "PCI configuration window"
    }

    fn read_mmio(&self, offset: u64, width: AccessWidth) -> Option<u64> {
        let (function, register) = decode(offset, width)?;
        Some(self.bus.read(function, register, width))
    }

    fn write_mmio(&self, offset: u64, width: AccessWidth, value: u64) -> bool {
        decode(offset, width)
            .is_some_and(|(function, register)| self.bus.write(function, register, width, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::HostBridge;

    fn window() -> Ecam {
        let bus = Arc::new(PciBus::new());
        bus.attach(FunctionAddress::HOST_BRIDGE, Arc::new(HostBridge::new())).unwrap();
        Ecam::new(bus)
    }

    #[test]
    fn host_bridge_answers_in_every_width() {
        let ecam = window();
        assert_eq!(ecam.read_mmio(0, AccessWidth::Word), Some(0x1B36));
        assert_eq!(ecam.read_mmio(0, AccessWidth::Qword), Some(0x0000_0006_0008_1B36));
        assert_eq!(ecam.read_mmio(0xA, AccessWidth::Word), Some(0x0600));
        assert_eq!(ecam.read_mmio(0xB, AccessWidth::Byte), Some(6));
        assert_eq!(ecam.read_mmio(0x100, AccessWidth::Dword), Some(0));
        assert!(ecam.write_mmio(0x3C, AccessWidth::Dword, 0xFFFF_FFFF));
        assert_eq!(ecam.read_mmio(0x3C, AccessWidth::Dword), Some(0xFF));
    }

    #[test]
    fn everything_else_is_all_ones() {
        let ecam = window();
        for offset in [0x1000, 0x8000, 0x10_0000, ECAM_BYTES - 8] {
            assert_eq!(ecam.read_mmio(offset, AccessWidth::Qword), Some(u64::MAX));
            assert!(!ecam.write_mmio(offset, AccessWidth::Byte, 1));
        }
    }

    #[test]
    fn no_access_reaches_two_functions_or_leaves_the_window() {
        let ecam = window();
        assert_eq!(ecam.read_mmio(0xFFE, AccessWidth::Dword), None);
        assert_eq!(ecam.read_mmio(ECAM_BYTES, AccessWidth::Byte), None);
        assert!(!ecam.write_mmio(u64::MAX, AccessWidth::Byte, 0));
    }
}
