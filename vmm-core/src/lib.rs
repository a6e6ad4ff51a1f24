// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host-agnostic virtual machine monitor core.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod access;
mod address;
pub mod boot;
mod control;
mod device;
mod doorbell;
mod interrupt;
pub mod memory;
pub mod state;
mod time;

pub use access::AccessWidth;
pub use address::{GuestPhysAddr, GuestVirtAddr, PAGE_SIZE};
pub use control::{EndReason, VmControl};
pub use device::{
    EoiObserver, ExternalInterruptSource, HostEventClient, InterruptInputs, MmioDevice, PortDevice,
    TimerClient,
};
pub use doorbell::{Doorbell, VcpuLink};
pub use interrupt::{ApicBus, ApicMessage, DeliveryMode, Destination, IrqLine};
pub use state::Vector;
pub use time::{MAX_TIMERS, NANOSECONDS, Timer, TimerBank, VmClock, VmInstant, scale};
