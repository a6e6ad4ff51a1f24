// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration access through ports 0xCF8 to 0xCFF (PCI 3.0, 3.2.2.3.2).

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};
use spin::Mutex;
use vmm_core::{AccessWidth, PortDevice};

use super::{FunctionAddress, PciBus};
use crate::reset::RESET_CONTROL_PORT;

/// First port of the address and data registers.
pub const CONFIG_PORTS_BASE: u16 = 0xCF8;

/// Number of ports.
pub const CONFIG_PORTS: u16 = 8;

const ADDRESS: u16 = 0;
const DATA: u16 = 4;
const RESET_CONTROL: u16 = RESET_CONTROL_PORT - CONFIG_PORTS_BASE;

/// Address register: accesses to the data register are configuration cycles.
const ENABLE: u32 = 1 << 31;
/// Address register: the bits that exist.
const DEFINED: u32 = ENABLE | 0x00FF_FFFC;

/// What is to be saved of [`ConfigPorts`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConfigPortsState {
    /// The address register.
    pub address: u32,
}

/// Configuration mechanism #1: an address register that answers to whole dwords only, and a
/// data register.
///
/// On a PC, the bytes of the address register belong to other devices; one does exist, the
/// reset control register at 0xCF9, to which byte accesses are passed on.
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    reset_control: Arc<dyn PortDevice>,
    address: Mutex<u32>,
}

impl ConfigPorts {
    /// Ports to the configuration space of `bus`, with `reset_control` at 0xCF9.
    pub fn new(bus: Arc<PciBus>, reset_control: Arc<dyn PortDevice>) -> Self {
        Self { bus, reset_control, address: Mutex::new(0) }
    }

    /// Takes the state out.
    pub fn save(&self) -> ConfigPortsState {
        ConfigPortsState { address: *self.address.lock() }
    }

    /// Puts a state back.
    pub fn restore(&self, state: ConfigPortsState) {
        *self.address.lock() = state.address & DEFINED;
    }

    /// Where an access to the data register goes, if configuration cycles are enabled and it
    /// does not reach beyond the register.
    fn target(&self, offset: u16, width: AccessWidth) -> Option<(FunctionAddress, u16)> {
        let byte = offset.checked_sub(DATA)?;
        let address = *self.address.lock();
        if address & ENABLE == 0 || usize::from(byte) + width.bytes() > 4 {
            return None;
        }
        let register = (address & 0xFC) as u16 + byte;
        Some((FunctionAddress::from_bits((address >> 8) as u16), register))
    }
}

impl PortDevice for ConfigPorts {
    fn name(&self) -> &str {
        "PCI configuration ports"
    }

    fn widest(&self) -> AccessWidth {
        AccessWidth::Dword
    }

    fn read_port(&self, offset: u16, width: AccessWidth) -> Option<u32> {
        match (offset, width) {
            (ADDRESS, AccessWidth::Dword) => Some(*self.address.lock()),
            (RESET_CONTROL, AccessWidth::Byte) => self.reset_control.read_port(0, width),
            _ => {
                let (function, register) = self.target(offset, width)?;
                Some(self.bus.read(function, register, width) as u32)
            }
        }
    }

    fn write_port(&self, offset: u16, width: AccessWidth, value: u32) -> bool {
        match (offset, width) {
            (ADDRESS, AccessWidth::Dword) => {
                *self.address.lock() = value & DEFINED;
                true
            }
            (RESET_CONTROL, AccessWidth::Byte) => self.reset_control.write_port(0, width, value),
            _ => self.target(offset, width).is_some_and(|(function, register)| {
                self.bus.write(function, register, width, u64::from(value))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmm_core::{EndReason, VmControl};

    use super::*;
    use crate::{
        pci::HostBridge,
        reset::{RESET_CONTROL_VALUE, ResetControl},
    };
    use AccessWidth::{Byte, Dword, Word};

    fn ports() -> (ConfigPorts, VmControl) {
        let bus = Arc::new(PciBus::new());
        bus.attach(FunctionAddress::HOST_BRIDGE, Arc::new(HostBridge::new())).unwrap();
        let control = VmControl::new();
        (ConfigPorts::new(bus, Arc::new(ResetControl::new(control.clone()))), control)
    }

    #[test]
    fn reads_the_host_bridge_in_every_width() {
        let (ports, _) = ports();
        assert!(ports.write_port(0, Dword, 0x8000_0003));
        assert_eq!(ports.read_port(0, Dword), Some(0x8000_0000));
        assert_eq!(ports.read_port(4, Dword), Some(0x0008_1B36));
        assert_eq!(ports.read_port(5, Byte), Some(0x1B));
        assert_eq!(ports.read_port(6, Word), Some(8));
        assert!(ports.write_port(0, Dword, 0x8000_003C));
        assert!(ports.write_port(4, Byte, 0x5A));
        assert_eq!(ports.read_port(4, Dword), Some(0x5A));
    }

    #[test]
    fn nothing_answers_while_disabled_or_where_no_function_is() {
        let (ports, _) = ports();
        assert_eq!(ports.read_port(4, Dword), None);
        assert!(!ports.write_port(4, Dword, 0));
        assert!(ports.write_port(0, Dword, 0x8000_0800));
        assert_eq!(ports.read_port(4, Dword), Some(u32::MAX));
        assert_eq!(ports.read_port(6, Dword), None, "beyond the data register");
    }

    #[test]
    fn parts_of_the_address_register_do_not_exist_but_reset_does() {
        let (ports, control) = ports();
        assert_eq!(ports.read_port(0, Byte), None);
        assert_eq!(ports.read_port(2, Word), None);
        assert!(!ports.write_port(3, Byte, 1));
        assert_eq!(ports.read_port(1, Byte), Some(0));
        assert!(ports.write_port(0, Dword, u32::from(RESET_CONTROL_VALUE) << 8));
        assert_eq!(control.ended(), None);
        assert!(ports.write_port(1, Byte, u32::from(RESET_CONTROL_VALUE)));
        assert!(matches!(control.ended(), Some(EndReason::Reset(_))));
    }

    proptest! {
        #[test]
        fn no_access_panics(
            address: u32,
            offset: u16,
            width in prop::sample::select(vec![Byte, Word, Dword, AccessWidth::Qword]),
            value: u32,
        ) {
            let (ports, _) = ports();
            ports.restore(ConfigPortsState { address });
            ports.read_port(offset, width);
            ports.write_port(offset, width, value);
        }
    }
}
