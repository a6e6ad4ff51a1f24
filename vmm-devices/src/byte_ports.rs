// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices whose registers are single bytes in I/O port space.
//!
//! The legacy devices know their registers by absolute port numbers, and some own several
//! ranges. A [`PortRange`] is what the platform claims on the bus for one of them.

use alloc::sync::Arc;
use core::ops::RangeInclusive;

use vmm_core::{AccessWidth, PortDevice};

/// A range of I/O ports and the device that answers there.
#[derive(Clone)]
pub struct PortRange {
    /// The ports to claim.
    pub ports: RangeInclusive<u16>,
    /// Whom to claim them for; takes offsets from the start of `ports`.
    pub device: Arc<dyn PortDevice>,
}

/// A device with byte-wide registers at absolute ports.
pub(crate) trait BytePorts: Send + Sync + 'static {
    /// Name for messages and for the report.
    fn name(&self) -> &str;

    /// Reads the register at `port`; `None` if it cannot be read.
    fn read_byte(&self, port: u16) -> Option<u8>;

    /// Writes the register at `port`; false if it cannot be written.
    fn write_byte(&self, port: u16, value: u8) -> bool;
}

/// One contiguous range of a device's ports.
struct Window<D> {
    device: Arc<D>,
    first: u16,
}

impl<D: BytePorts> PortDevice for Window<D> {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn read_port(&self, offset: u16, width: AccessWidth) -> Option<u32> {
        if width != AccessWidth::Byte {
            return None;
        }
        self.device.read_byte(self.first.checked_add(offset)?).map(u32::from)
    }

    fn write_port(&self, offset: u16, width: AccessWidth, value: u32) -> bool {
        let port = self.first.checked_add(offset).filter(|_| width == AccessWidth::Byte);
        port.is_some_and(|port| self.device.write_byte(port, value.to_le_bytes()[0]))
    }
}

/// Describes `ports` of `device` for the bus.
pub(crate) fn port_range<D: BytePorts>(device: &Arc<D>, ports: &RangeInclusive<u16>) -> PortRange {
    let window = Window { device: device.clone(), first: *ports.start() };
    PortRange { ports: ports.clone(), device: Arc::new(window) }
}
