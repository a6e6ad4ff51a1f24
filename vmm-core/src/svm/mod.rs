// SPDX-License-Identifier: MIT OR Apache-2.0
//! The AMD SVM backend (AMD APM vol. 2, chapter 15).

mod asid;
mod capability;
mod cpu;
mod decode;
mod nmi;
mod permission;
mod shadow;
mod switch;
mod vcpu;
mod vmcb;

pub use capability::{Capabilities, CpuidLeaves, SvmFeatures};
pub use cpu::Svm;
pub use vcpu::SvmVcpu;
