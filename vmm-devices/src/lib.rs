// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PC platform and its devices for vmm-core.
//!
//! [`PcPlatform`] makes all of them, connects them to each other and claims their ports and
//! addresses from a [`VmBuilder`](vmm_core::vm::VmBuilder). Each device can also be made alone.
//!
//! Devices run on the vCPUs' CPUs, several at once, and have a lock each. Locks are taken in the
//! order device, interrupt controller; that of the 8259A pair is innermost, and the I/O APIC
//! holds none while it delivers. Nothing counts in the background: registers are computed from
//! the VM's clock when they are read, and a timer is armed only while an interrupt is due.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
#[cfg(test)]
mod bug_classes;
mod byte_ports;
mod console;
mod deadline;
mod exit_port;
mod hpet;
mod ioapic;
mod irq_router;
mod memory_map;
mod output_line;
pub mod pci;
mod pic;
mod pit;
mod platform;
pub mod pm;
pub mod reset;
mod rtc;
#[cfg(test)]
mod test_support;
mod uart;

pub use byte_ports::PortRange;
pub use console::{CharBackend, LogConsole};
pub use exit_port::ExitPort;
pub use hpet::{Hpet, HpetState, LegacyReplacement};
pub use ioapic::{IoApic, IoApicInputState, IoApicState, RedirectionEntry};
pub use irq_router::IrqRouter;
pub use memory_map::memory_map;
pub use pic::{Pic, PicState};
pub use pit::{Pit, PitState};
pub use platform::{PcConfig, PcPlatform, PlatformError, TablesBy};
pub use rtc::{Rtc, RtcState};
pub use uart::{Uart, UartState};
