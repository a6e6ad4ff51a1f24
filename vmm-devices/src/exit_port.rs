// SPDX-License-Identifier: MIT OR Apache-2.0
//! A port with which a guest ends its VM and hands out a number.
//!
//! It stands in for the `isa-debug-exit` device that test kernels know, except that the value
//! written is reported as it is.

use vmm_core::{AccessWidth, EndReason, PortDevice, VmControl};

/// The exit port: four bytes of port space, any write to which ends the VM with
/// [`EndReason::ExitPort`].
pub struct ExitPort {
    control: VmControl,
}

impl ExitPort {
    /// Number of ports to claim.
    pub const PORTS: u16 = 4;

    /// An exit port that ends the VM behind `control`.
    pub fn new(control: VmControl) -> Self {
        Self { control }
    }
}

impl PortDevice for ExitPort {
    fn name(&self) -> &str {
        "exit port"
    }

    fn widest(&self) -> AccessWidth {
        AccessWidth::Dword
    }

    fn read_port(&self, _: u16, _: AccessWidth) -> Option<u32> {
        Some(0)
    }

    fn write_port(&self, _: u16, width: AccessWidth, value: u32) -> bool {
        let mask = u32::try_from(width.all_ones()).unwrap_or(u32::MAX);
        self.control.end(EndReason::ExitPort(value & mask));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_the_value_in_the_width_of_the_write() {
        for (width, value) in [
            (AccessWidth::Byte, 0x78),
            (AccessWidth::Word, 0x5678),
            (AccessWidth::Dword, 0x1234_5678),
        ] {
            let control = VmControl::new();
            let port = ExitPort::new(control.clone());
            assert_eq!(port.read_port(0, width), Some(0));
            assert_eq!(control.ended(), None);
            assert!(port.write_port(0, width, 0x1234_5678));
            assert_eq!(control.ended(), Some(&EndReason::ExitPort(value)));
        }
    }
}
