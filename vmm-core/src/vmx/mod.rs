// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Intel VT-x backend (Intel SDM vol. 3, chapters 23 to 33).

mod apic;
mod backend;
mod capability;
mod control_registers;
mod controls;
mod cpu;
mod debug_status;
mod decode;
mod entry;
mod entry_check;
mod entry_failure;
mod ept;
mod event;
mod exit;
#[cfg(feature = "fault-injection")]
mod fault_injection;
mod field;
mod host_state;
#[cfg(test)]
mod hostile;
mod initial;
mod instruction;
mod interruptibility;
mod length;
mod msr;
mod msr_area;
mod pause_loop;
mod permission;
mod preemption;
mod real_mode;
mod residence;
mod segment;
mod shadow;
mod switch;
mod switched_msrs;
#[cfg(test)]
mod tests;
mod unpaged;
mod vcpu;
mod virtual_apic;
mod vmcs;
mod vpid;

#[cfg(feature = "mock-backend")]
pub use capability::samples::SampleModel;
pub use capability::{Capabilities, CapabilityMsrs};
pub use cpu::Vmx;
pub use ept::EptEntries;
pub use vcpu::VmxVcpu;
