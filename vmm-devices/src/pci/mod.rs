// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PCI bus: functions, their configuration space and the two ways to reach it.

mod bus;
mod config_space;
mod ecam;
mod function;
mod host_bridge;
mod ports;

pub use bus::{PciBus, PciError};
pub use config_space::{ConfigSpace, ConfigSpaceState};
pub use ecam::{ECAM_BASE, ECAM_BYTES, Ecam, LAST_BUS};
pub use function::{ConfigRegister, FunctionAddress, PciFunction};
pub use host_bridge::HostBridge;
pub use ports::{CONFIG_PORTS, CONFIG_PORTS_BASE, ConfigPorts, ConfigPortsState};
