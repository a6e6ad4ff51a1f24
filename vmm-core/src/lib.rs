// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host-agnostic virtual machine monitor core.
//!
//! A host kernel implements [`host_iface::Host`], probes a [`backend`], puts a VM together with
//! [`vm::VmBuilder`], loads images into its memory with [`boot::load`], and gives each
//! [`vcpu::Vcpu`] a CPU: [`enter_cpu`](backend::Backend::enter_cpu),
//! [`run`](vcpu::Vcpu::run), [`leave_cpu`](backend::Backend::leave_cpu). `docs/embedding.md`
//! walks through it.
//!
//! - [`vcpu`] holds the loop of a vCPU: take up work, choose an event, enter, dispatch the exit.
//! - [`backend`] is the seam to the vendor's hardware, which produces the neutral [`Exit`];
//!   [`svm`] is the one behind it.
//! - [`emulate`] completes single instructions: accesses to devices, and string port I/O.
//! - [`apic`] is the local APIC, [`cpuid`] and [`msr`] the policy of what a guest sees.
//! - [`memory`] and [`paging`] are guest memory, the nested tables under it and the walk of the
//!   guest's own tables.
//! - [`bus`], [`hooks`] and the device traits are how devices and hosts answer a guest.
//!
//! Three rules hold throughout. Everything traps and answers as if nothing were there until a
//! device, a hook or the policy claims it. Nothing a guest does panics the host: it gets the
//! architectural fault, or its VM ends with an [`EndReason`]. And there is no clock and no
//! thread here: what a guest armed folds into one one-shot timer of its CPU.
#![cfg_attr(not(any(test, feature = "test-support")), no_std)]

extern crate alloc;

mod access;
mod address;
pub mod apic;
pub mod backend;
pub mod boot;
#[cfg(test)]
mod bug_classes;
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
#[cfg(any(test, feature = "mock-backend", feature = "test-support"))]
pub mod mock_backend;
pub mod msr;
pub mod paging;
pub mod pvclock;
pub mod state;
pub mod statistics;
pub mod svm;
mod switch_registers;
mod sync;
#[cfg(any(test, feature = "test-support"))]
#[doc(hidden)]
pub mod test_support;
mod time;
mod trap_map;
mod tsc_aux;
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
pub use exit::{
    ApicAccess, ApicAccessKind, BriefExit, ControlRegisterAccess, Event, Exit, NestedPageFault,
    PortIo, TaskSwitch, TaskSwitchSource, Trapped,
};
pub use interrupt::{ApicBus, ApicMessage, DeliveryMode, Destination, IrqLine};
pub use state::Vector;
pub use time::{MAX_TIMERS, NANOSECONDS, Timer, TimerBank, VmClock, VmInstant, scale};
