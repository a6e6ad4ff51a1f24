// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways in which a PC's software resets it.
//!
//! Each of them ends the VM with [`EndReason::Reset`]; whether it is started again is the
//! host's decision.

use serde::{Deserialize, Serialize};
use spin::Mutex;
use vmm_core::{AccessWidth, EndReason, PortDevice, VmControl};

/// Port of [`ResetControl`].
pub const RESET_CONTROL_PORT: u16 = 0xCF9;
/// The value that resets all through [`RESET_CONTROL_PORT`]: a hard reset of the whole system.
pub const RESET_CONTROL_VALUE: u8 = reset_control::RESET_CPU | reset_control::SYSTEM_RESET;

mod reset_control {
    /// Selects a hard instead of a soft reset.
    pub const SYSTEM_RESET: u8 = 1 << 1;
    /// Resets when it goes from 0 to 1.
    pub const RESET_CPU: u8 = 1 << 2;
    /// Selects a reset that cycles power as well.
    pub const FULL_RESET: u8 = 1 << 3;
    pub const DEFINED: u8 = SYSTEM_RESET | RESET_CPU | FULL_RESET;
}

/// What is to be saved of a device with one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RegisterState {
    /// The register.
    pub value: u8,
}

/// The reset control register at port 0xCF9 (Intel ICH9 datasheet, 13.7.5), which ACPI's
/// reset register names, too.
pub struct ResetControl {
    control: VmControl,
    register: Mutex<u8>,
}

impl ResetControl {
    /// A reset register that ends the VM behind `control`.
    pub fn new(control: VmControl) -> Self {
        Self { control, register: Mutex::new(0) }
    }

    /// Takes the state out.
    pub fn save(&self) -> RegisterState {
        RegisterState { value: *self.register.lock() }
    }

    /// Puts a state back.
    pub fn restore(&self, state: RegisterState) {
        *self.register.lock() = state.value & reset_control::DEFINED;
    }
}

impl PortDevice for ResetControl {
    fn name(&self) -> &str {
        "reset control register"
    }

    fn read_port(&self, _: u16, _: AccessWidth) -> Option<u32> {
        Some(u32::from(*self.register.lock()))
    }

    fn write_port(&self, _: u16, _: AccessWidth, value: u32) -> bool {
        let value = value as u8 & reset_control::DEFINED;
        let before = core::mem::replace(&mut *self.register.lock(), value);
        if value & !before & reset_control::RESET_CPU != 0 {
            let kind = value & (reset_control::SYSTEM_RESET | reset_control::FULL_RESET);
            self.control.end(EndReason::Reset(match kind {
                0 => "a soft reset through port 0xCF9",
                reset_control::SYSTEM_RESET => "a hard reset through port 0xCF9",
                _ => "a full reset through port 0xCF9",
            }));
        }
        true
    }
}

/// System control port A at 0x92: fast A20 gate and fast CPU reset (Intel ICH9 datasheet,
/// 13.7.3). The A20 line itself is always enabled.
pub struct SystemControlPortA {
    control: VmControl,
    register: Mutex<u8>,
}

impl SystemControlPortA {
    /// Port of the register.
    pub const PORT: u16 = 0x92;
    const INIT_NOW: u8 = 1 << 0;
    const A20: u8 = 1 << 1;

    /// A register that ends the VM behind `control`.
    pub fn new(control: VmControl) -> Self {
        Self { control, register: Mutex::new(Self::A20) }
    }

    /// Takes the state out.
    pub fn save(&self) -> RegisterState {
        RegisterState { value: *self.register.lock() }
    }

    /// Puts a state back.
    pub fn restore(&self, state: RegisterState) {
        *self.register.lock() = state.value & (Self::INIT_NOW | Self::A20);
    }
}

impl PortDevice for SystemControlPortA {
    fn name(&self) -> &str {
        "system control port A"
    }

    fn read_port(&self, _: u16, _: AccessWidth) -> Option<u32> {
        Some(u32::from(*self.register.lock()))
    }

    fn write_port(&self, _: u16, _: AccessWidth, value: u32) -> bool {
        let value = value as u8 & (Self::INIT_NOW | Self::A20);
        let before = core::mem::replace(&mut *self.register.lock(), value);
        if value & !before & Self::INIT_NOW != 0 {
            self.control.end(EndReason::Reset("a fast reset through port 0x92"));
        }
        true
    }
}

/// What is to be saved of a [`KeyboardControllerReset`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KeyboardControllerState {
    /// The next byte written to the data port is for the output port.
    pub output_port_expected: bool,
}

/// The part of an 8042 keyboard controller that resets a PC: its output port, whose bit 0 is
/// the CPU's reset line, low being active.
///
/// There is neither keyboard nor mouse. The status register says that the controller takes
/// commands and holds no data, so that nobody waits before a reset (Linux: `reboot=k`), and
/// that a driver which drains the buffer finds it empty at once.
pub struct KeyboardControllerReset {
    control: VmControl,
    state: Mutex<KeyboardControllerState>,
}

/// The data port of a keyboard controller.
pub struct KeyboardData(pub alloc::sync::Arc<KeyboardControllerReset>);

/// The command and status port of a keyboard controller.
pub struct KeyboardCommand(pub alloc::sync::Arc<KeyboardControllerReset>);

impl KeyboardControllerReset {
    /// Port for [`KeyboardData`].
    pub const DATA_PORT: u16 = 0x60;
    /// Port for [`KeyboardCommand`].
    pub const COMMAND_PORT: u16 = 0x64;

    /// Status: the controller has passed its self-test; both buffers are empty.
    const STATUS: u8 = 1 << 2;
    const WRITE_OUTPUT_PORT: u8 = 0xD1;
    /// Commands 0xF0 to 0xFF pulse those lines of the output port low whose bit is clear.
    const PULSE_OUTPUT_PORT: u8 = 0xF0;
    /// The reset line in the output port.
    const RESET_LINE: u8 = 1 << 0;

    /// A controller that ends the VM behind `control`.
    pub fn new(control: VmControl) -> Self {
        Self { control, state: Mutex::default() }
    }

    /// Takes the state out.
    pub fn save(&self) -> KeyboardControllerState {
        *self.state.lock()
    }

    /// Puts a state back.
    pub fn restore(&self, state: KeyboardControllerState) {
        *self.state.lock() = state;
    }

    fn command(&self, command: u8) {
        self.state.lock().output_port_expected = command == Self::WRITE_OUTPUT_PORT;
        if command & Self::PULSE_OUTPUT_PORT == Self::PULSE_OUTPUT_PORT {
            self.drive_output_port(command);
        }
    }

    fn data(&self, value: u8) {
        if core::mem::take(&mut self.state.lock().output_port_expected) {
            self.drive_output_port(value);
        }
    }

    fn drive_output_port(&self, lines: u8) {
        if lines & Self::RESET_LINE == 0 {
            self.control.end(EndReason::Reset("the reset line of the keyboard controller"));
        }
    }
}

impl PortDevice for KeyboardData {
    fn name(&self) -> &str {
        "keyboard controller data"
    }

    fn read_port(&self, _: u16, _: AccessWidth) -> Option<u32> {
        Some(0)
    }

    fn write_port(&self, _: u16, _: AccessWidth, value: u32) -> bool {
        self.0.data(value as u8);
        true
    }
}

impl PortDevice for KeyboardCommand {
    fn name(&self) -> &str {
        "keyboard controller command"
    }

    fn read_port(&self, _: u16, _: AccessWidth) -> Option<u32> {
        Some(u32::from(KeyboardControllerReset::STATUS))
    }

    fn write_port(&self, _: u16, _: AccessWidth, value: u32) -> bool {
        self.0.command(value as u8);
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;

    fn write(device: &dyn PortDevice, value: u32) {
        assert!(device.write_port(0, AccessWidth::Byte, value));
    }

    fn reset_of(control: &VmControl) -> Option<&'static str> {
        match control.ended() {
            Some(EndReason::Reset(how)) => Some(how),
            Some(other) => panic!("ended by {other}"),
            None => None,
        }
    }

    #[test]
    fn reset_register_acts_on_the_rising_edge() {
        for (select, kind) in [(0, "soft"), (2, "hard"), (0xA, "full"), (8, "full")] {
            let control = VmControl::new();
            let device = ResetControl::new(control.clone());
            device.restore(RegisterState { value: 4 });
            write(&device, select | 4);
            write(&device, select);
            assert_eq!(reset_of(&control), None);
            assert_eq!(device.read_port(0, AccessWidth::Byte), Some(select));
            write(&device, select | 4);
            assert!(reset_of(&control).unwrap().contains(kind));
        }
    }

    #[test]
    fn acpi_reset_value_resets() {
        let control = VmControl::new();
        write(&ResetControl::new(control.clone()), u32::from(RESET_CONTROL_VALUE));
        assert!(reset_of(&control).unwrap().contains("hard"));
    }

    #[test]
    fn fast_reset_acts_on_the_rising_edge_and_a20_reads_back() {
        let control = VmControl::new();
        let device = SystemControlPortA::new(control.clone());
        assert_eq!(device.read_port(0, AccessWidth::Byte), Some(2));
        write(&device, 0xFC);
        assert_eq!(device.save(), RegisterState { value: 0 });
        assert_eq!(reset_of(&control), None);
        write(&device, 1);
        assert!(reset_of(&control).unwrap().contains("0x92"));
    }

    #[test]
    fn keyboard_controller_resets_by_pulse_and_by_output_port() {
        let ways: [&[(bool, u32)]; 3] =
            [&[(true, 0xFE)], &[(true, 0xF0)], &[(true, 0xD1), (false, 0xFE)]];
        for way in ways {
            let control = VmControl::new();
            let device = Arc::new(KeyboardControllerReset::new(control.clone()));
            let (data, command) = (KeyboardData(device.clone()), KeyboardCommand(device));
            write(&data, 0xFE);
            write(&command, 0xFF);
            write(&command, 0xD1);
            write(&data, 0xFF);
            write(&data, 0);
            write(&command, 0xAD);
            assert_eq!(reset_of(&control), None);
            for &(is_command, value) in way {
                write(if is_command { &command } else { &data as &dyn PortDevice }, value);
            }
            assert!(reset_of(&control).is_some());
        }
    }

    #[test]
    fn keyboard_controller_never_keeps_anybody_waiting() {
        let device = Arc::new(KeyboardControllerReset::new(VmControl::new()));
        for command in 0..=0xFF {
            device.command(command);
            let status = KeyboardCommand(device.clone()).read_port(0, AccessWidth::Byte);
            assert_eq!(status.unwrap() & 3, 0, "both buffers are empty after {command:#x}");
        }
    }
}
