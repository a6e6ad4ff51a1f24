// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host-agnostic virtual machine monitor core.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod access;
mod address;
pub mod apic;
pub mod backend;
pub mod boot;
pub mod bus;
mod control;
pub mod control_registers;
mod cpu_interrupts;
pub mod cpuid;
mod debug;
mod device;
mod doorbell;
pub mod emulate;
mod exit;
mod fpu;
pub mod hooks;
mod host_registers;
mod interrupt;
pub mod memory;
pub mod msr;
pub mod paging;
pub mod pvclock;
pub mod state;
pub mod statistics;
pub mod svm;
mod time;
pub mod vcpu;
pub mod vm;
pub mod vmx;

pub use access::AccessWidth;
pub use address::{GuestPhysAddr, GuestVirtAddr, PAGE_SIZE};
pub use control::{EndReason, VmControl};
pub use device::{
    EoiObserver, ExternalInterruptSource, HostEventClient, InterruptInputs, MmioDevice, PortDevice,
    TimerClient,
};
pub use doorbell::{Doorbell, VcpuLink};
pub use exit::{ControlRegisterAccess, Event, Exit, NestedPageFault, PortIo, Trapped};
pub use interrupt::{ApicBus, ApicMessage, DeliveryMode, Destination, IrqLine};
pub use state::Vector;
pub use time::{MAX_TIMERS, NANOSECONDS, Timer, TimerBank, VmClock, VmInstant, scale};
