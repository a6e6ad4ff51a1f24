// SPDX-License-Identifier: MIT OR Apache-2.0
//! The function that stands for the host at 00:00.0.

use spin::Mutex;

use super::{ConfigRegister, ConfigSpace, ConfigSpaceState, PciFunction};

/// 1b36:0008 is registered as a generic PCI Express host bridge without registers of its own.
/// No guest has a driver or a chipset quirk for it, as guests have for the host bridges of
/// real chipsets, whose registers they then expect to find.
const VENDOR_AND_DEVICE: u32 = 0x0008_1B36;

/// Base class 06 (bridge), sub-class 00 (host), revision 0.
const CLASS_AND_REVISION: u32 = 0x0600_0000;

/// Memory space and bus mastering are enabled, for good.
const COMMAND: u32 = 0x0000_0006;

/// The interrupt line register is scratch space for firmware (PCI 3.0, 6.2.4).
const INTERRUPT_LINE: u32 = 0x0000_00FF;

/// A host bridge: it has no registers but its identity.
pub struct HostBridge {
    space: Mutex<ConfigSpace>,
}

impl Default for HostBridge {
    fn default() -> Self {
        let space = ConfigSpace::default()
            .with(0x00, VENDOR_AND_DEVICE, 0)
            .with(0x04, COMMAND, 0)
            .with(0x08, CLASS_AND_REVISION, 0)
            .with(0x3C, 0, INTERRUPT_LINE);
        Self { space: Mutex::new(space) }
    }
}

impl HostBridge {
    /// A host bridge.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the state out.
    pub fn save(&self) -> ConfigSpaceState {
        self.space.lock().save()
    }

    /// Puts a state back.
    pub fn restore(&self, state: &ConfigSpaceState) {
        self.space.lock().restore(state);
    }
}

impl PciFunction for HostBridge {
    fn name(&self) -> &str {
        "PCI host bridge"
    }

    fn read_config(&self, register: ConfigRegister) -> u32 {
        self.space.lock().read(register)
    }

    fn write_config(&self, register: ConfigRegister, value: u32, mask: u32) {
        self.space.lock().write(register, value, mask);
    }
}
