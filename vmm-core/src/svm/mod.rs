// SPDX-License-Identifier: MIT OR Apache-2.0
//! The AMD SVM backend (AMD APM vol. 2, chapter 15).

mod asid;
mod capability;
mod cpu;
mod debug;
mod decode;
mod entry;
mod entry_check;
#[cfg(feature = "fault-injection")]
mod fault_injection;
#[cfg(test)]
mod hostile;
mod intercepts;
mod long_mode;
mod nmi;
mod pause_filter;
mod permission;
mod shadow;
mod step;
mod switch;
#[cfg(test)]
mod test_vcpu;
mod tlb;
mod vcpu;
mod vmcb;

pub use capability::{Capabilities, CpuidLeaves, SvmFeatures};
pub use cpu::Svm;
pub use vcpu::SvmVcpu;
