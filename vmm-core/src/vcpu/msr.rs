// SPDX-License-Identifier: MIT OR Apache-2.0
//! RDMSR and WRMSR.

use x86::msr::{
    IA32_CSTAR, IA32_EFER, IA32_FMASK, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GSBASE, IA32_LSTAR,
    IA32_PAT, IA32_STAR, IA32_SYSENTER_CS, IA32_SYSENTER_EIP, IA32_SYSENTER_ESP, IA32_TSC_AUX,
    IA32_TSC_DEADLINE,
};

use super::Vcpu;
use crate::{
    apic::{LocalApic, X2APIC_MSRS},
    backend::{HardwareMsr, VcpuBackend},
    msr::{GeneralProtection, is_canonical, validate_efer, validate_pat, validate_tsc_aux},
    state::{ControlRegisters, Gpr, SegmentRegister},
    statistics::Unclaimed,
};

/// What a value has to satisfy for an MSR that the hardware holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Any,
    /// 32 bits. On VT-x the value may go to the register of the host's CPU, where a higher bit
    /// raises #GP (Intel SDM vol. 3, figure 5-14).
    LowHalf,
    Canonical,
    Pat,
}

const fn hardware_msr(msr: u32) -> Option<(HardwareMsr, Rule)> {
    Some(match msr {
        IA32_STAR => (HardwareMsr::Star, Rule::Any),
        IA32_LSTAR => (HardwareMsr::Lstar, Rule::Canonical),
        IA32_CSTAR => (HardwareMsr::Cstar, Rule::Canonical),
        IA32_FMASK => (HardwareMsr::Sfmask, Rule::LowHalf),
        IA32_KERNEL_GSBASE => (HardwareMsr::KernelGsBase, Rule::Canonical),
        IA32_SYSENTER_CS => (HardwareMsr::SysenterCs, Rule::Any),
        IA32_SYSENTER_ESP => (HardwareMsr::SysenterEsp, Rule::Canonical),
        IA32_SYSENTER_EIP => (HardwareMsr::SysenterEip, Rule::Canonical),
        IA32_PAT => (HardwareMsr::Pat, Rule::Pat),
        _ => return None,
    })
}

impl<V: VcpuBackend> Vcpu<V> {
    /// RDMSR, without going on behind it.
    #[inline]
    pub(super) fn read_msr(&mut self) -> Result<(), GeneralProtection> {
        let msr = self.hardware.gpr(Gpr::Rcx) as u32;
        let value = self.msr_value(msr).inspect_err(|_| {
            self.statistics.count_unclaimed(Unclaimed::MsrRead);
        })?;
        self.hardware.set_gpr(Gpr::Rax, value & 0xFFFF_FFFF);
        self.hardware.set_gpr(Gpr::Rdx, value >> 32);
        Ok(())
    }

    /// WRMSR, without going on behind it.
    #[inline]
    pub(super) fn write_msr(&mut self) -> Result<(), GeneralProtection> {
        let msr = self.hardware.gpr(Gpr::Rcx) as u32;
        let low = self.hardware.gpr(Gpr::Rax) & 0xFFFF_FFFF;
        let value = self.hardware.gpr(Gpr::Rdx) << 32 | low;
        self.set_msr_value(msr, value).inspect_err(|_| {
            self.statistics.count_unclaimed(Unclaimed::MsrWrite);
        })
    }

    #[inline]
    fn msr_value(&mut self, msr: u32) -> Result<u64, GeneralProtection> {
        if let Some(hook) = self.core.hooks.msr(msr) {
            return hook.read_msr(self.index, msr);
        }
        match hardware_msr(msr) {
            Some((hardware, _)) => Ok(self.hardware.msr(hardware)),
            None => self.other_msr_value(msr),
        }
    }

    fn other_msr_value(&mut self, msr: u32) -> Result<u64, GeneralProtection> {
        match msr {
            IA32_EFER => Ok(self.hardware.control_registers().efer),
            IA32_FS_BASE => Ok(self.hardware.segment(SegmentRegister::Fs).base),
            IA32_GS_BASE => Ok(self.hardware.segment(SegmentRegister::Gs).base),
            IA32_TSC_AUX if self.core.cpuid.has_tsc_aux() => Ok(self.hardware.tsc_aux().into()),
            _ => {
                let (msrs, mut context) = self.msr_parts();
                msrs.read(msr, &mut context)
            }
        }
    }

    #[inline]
    fn set_msr_value(&mut self, msr: u32, value: u64) -> Result<(), GeneralProtection> {
        if let Some(hook) = self.core.hooks.msr(msr) {
            return hook.write_msr(self.index, msr, value);
        }
        if let Some((hardware, rule)) = hardware_msr(msr) {
            self.check(rule, value)?;
            self.hardware.set_msr(hardware, value);
            return Ok(());
        }
        self.set_other_msr_value(msr, value)
    }

    fn set_other_msr_value(&mut self, msr: u32, value: u64) -> Result<(), GeneralProtection> {
        if X2APIC_MSRS.contains(&msr) || msr == IA32_TSC_DEADLINE {
            self.apic.write_msr(msr, value)?;
            let offset = u64::from(msr.wrapping_sub(*X2APIC_MSRS.start())) << 4;
            self.follow_apic_access(msr == IA32_TSC_DEADLINE || LocalApic::is_confined(offset));
            return Ok(());
        }
        // What follows may switch the local APIC, or change the mode.
        self.settled = false;
        match msr {
            IA32_EFER => self.set_efer(value),
            IA32_FS_BASE => self.set_base(SegmentRegister::Fs, value),
            IA32_GS_BASE => self.set_base(SegmentRegister::Gs, value),
            IA32_TSC_AUX if self.core.cpuid.has_tsc_aux() => {
                validate_tsc_aux(value)?;
                self.hardware.set_tsc_aux(value as u32);
                Ok(())
            }
            _ => {
                let (msrs, mut context) = self.msr_parts();
                let effect = msrs.write(msr, value, &mut context)?;
                self.apply(effect);
                Ok(())
            }
        }
    }

    fn check(&self, rule: Rule, value: u64) -> Result<(), GeneralProtection> {
        match rule {
            Rule::Any => Ok(()),
            Rule::LowHalf if value >> 32 == 0 => Ok(()),
            Rule::Canonical if is_canonical(value) => Ok(()),
            Rule::LowHalf | Rule::Canonical => Err(GeneralProtection),
            Rule::Pat => validate_pat(value),
        }
    }

    fn set_efer(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let old = self.hardware.control_registers();
        let efer = validate_efer(old.efer, value, old.cr0, &self.core.cpuid)?;
        let new = ControlRegisters { efer, ..old };
        self.hardware.set_control_registers(new);
        self.note_new_control_registers(&old, &new);
        Ok(())
    }

    fn set_base(&mut self, register: SegmentRegister, base: u64) -> Result<(), GeneralProtection> {
        self.check(Rule::Canonical, base)?;
        let segment = self.hardware.segment(register);
        self.hardware.set_segment(register, crate::state::Segment { base, ..segment });
        Ok(())
    }
}
