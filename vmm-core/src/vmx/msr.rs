// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSRs of the guest that the hardware holds: in the control structure, or in the registers
//! themselves while the vCPU is loaded.

use x86::msr::{IA32_CSTAR, IA32_FMASK, IA32_KERNEL_GSBASE, IA32_LSTAR, IA32_STAR};

use super::{field::Field, vcpu::VmxVcpu};
use crate::backend::HardwareMsr;

/// Where an MSR of the guest is.
#[derive(Clone, Copy)]
enum Place {
    /// In the register, while the vCPU is loaded.
    Register(u32),
    /// In a field, of which entries load the register.
    Field(Field),
}

const fn place(msr: HardwareMsr) -> Place {
    match msr {
        HardwareMsr::Star => Place::Register(IA32_STAR),
        HardwareMsr::Lstar => Place::Register(IA32_LSTAR),
        HardwareMsr::Cstar => Place::Register(IA32_CSTAR),
        HardwareMsr::Sfmask => Place::Register(IA32_FMASK),
        HardwareMsr::KernelGsBase => Place::Register(IA32_KERNEL_GSBASE),
        HardwareMsr::SysenterCs => Place::Field(Field::SysenterCs),
        HardwareMsr::SysenterEsp => Place::Field(Field::SysenterEsp),
        HardwareMsr::SysenterEip => Place::Field(Field::SysenterEip),
        HardwareMsr::Pat => Place::Field(Field::GuestPat),
        HardwareMsr::DebugCtl => Place::Field(Field::GuestDebugCtl),
    }
}

impl VmxVcpu {
    /// The guest's value.
    pub(super) fn guest_msr(&self, msr: HardwareMsr) -> u64 {
        match place(msr) {
            Place::Register(number) => self.switched.get(number),
            Place::Field(field) => self.vmcs.read(field),
        }
    }

    /// Sets the guest's value, which was checked.
    pub(super) fn set_guest_msr(&mut self, msr: HardwareMsr, value: u64) {
        match place(msr) {
            Place::Register(number) => self.switched.set(number, value),
            Place::Field(field) => self.vmcs.write(field, value),
        }
    }
}
