// SPDX-License-Identifier: MIT OR Apache-2.0
//! The MSRs of one vCPU.

use alloc::sync::Arc;

use host_iface::Host;
use serde::{Deserialize, Serialize};

use super::{GeneralProtection, MachineCheckMsrs, MsrContext, MsrEffect, Mtrrs, VendorMsrs, index};
use crate::{
    VmClock,
    apic::LocalApic,
    cpuid::CpuidTable,
    pvclock::{SystemClock, write_wall_clock},
};

const IBPB: u64 = 1;

/// What the MSRs of a vCPU are built from.
#[derive(Clone)]
pub struct VcpuMsrsConfig {
    /// Gives the time.
    pub host: &'static dyn Host,
    /// The VM's clock, the same for all its vCPUs.
    pub clock: VmClock,
    /// What the guest sees in CPUID.
    pub cpuid: Arc<CpuidTable>,
}

/// The MSRs of one vCPU, owned by its thread.
pub struct VcpuMsrs {
    config: VcpuMsrsConfig,
    tsc_offset: u64,
    mtrrs: Mtrrs,
    machine_check: MachineCheckMsrs,
    vendor: VendorMsrs,
    system_clock: SystemClock,
}

/// The MSRs as data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VcpuMsrsState {
    /// The guest's TSC at the moment of saving.
    pub guest_tsc: u64,
    /// Memory type ranges.
    pub mtrrs: Mtrrs,
    /// Machine-check registers.
    pub machine_check: MachineCheckMsrs,
    /// Registers of the CPU's manufacturer.
    pub vendor: VendorMsrs,
    /// KVM_SYSTEM_TIME.
    pub system_time: u64,
}

impl VcpuMsrs {
    /// The registers as firmware leaves them. The guest's TSC is zero at the origin of the
    /// VM's clock.
    pub fn new(config: VcpuMsrsConfig) -> Self {
        Self {
            tsc_offset: config.clock.origin().0.wrapping_neg(),
            mtrrs: Mtrrs::after_firmware(config.cpuid.physical_address_bits()),
            machine_check: MachineCheckMsrs::default(),
            vendor: VendorMsrs::new(config.cpuid.model().vendor),
            system_clock: SystemClock::default(),
            config,
        }
    }

    /// What the guest's TSC is ahead of the host's, wrapping. The local APIC and the hardware
    /// start with it ([`LocalApic::set_tsc_offset`]).
    #[inline]
    pub fn tsc_offset(&self) -> u64 {
        self.tsc_offset
    }

    /// Answers RDMSR.
    ///
    /// # Errors
    /// [`GeneralProtection`] if the register does not exist or cannot be read.
    pub fn read(
        &mut self,
        msr: u32,
        context: &mut MsrContext<'_>,
    ) -> Result<u64, GeneralProtection> {
        if LocalApic::owns_msr(msr) {
            return context.apic.read_msr(msr);
        }
        let value = match msr {
            index::TSC => Some(self.guest_tsc()),
            index::DEBUG_CTL => Some(0),
            index::KVM_SYSTEM_TIME => Some(self.system_clock.register()),
            index::KVM_WALL_CLOCK => Some(0),
            _ => self
                .mtrrs
                .read(msr)
                .or_else(|| self.machine_check.read(msr))
                .or_else(|| self.vendor.read(msr, &self.config.cpuid)),
        };
        value.ok_or(GeneralProtection)
    }

    /// Answers WRMSR.
    ///
    /// # Errors
    /// [`GeneralProtection`] if the register does not exist, cannot be written, or not with
    /// this value.
    #[inline]
    pub fn write(
        &mut self,
        msr: u32,
        value: u64,
        context: &mut MsrContext<'_>,
    ) -> Result<MsrEffect, GeneralProtection> {
        if LocalApic::owns_msr(msr) {
            return context.apic.write_msr(msr, value).map(|()| MsrEffect::None);
        }
        self.write_own(msr, value, context)
    }

    fn write_own(
        &mut self,
        msr: u32,
        value: u64,
        context: &mut MsrContext<'_>,
    ) -> Result<MsrEffect, GeneralProtection> {
        match msr {
            index::TSC => return Ok(self.write_tsc(value, context)),
            // Neither single-stepping on branches nor branch records are offered.
            index::DEBUG_CTL if value == 0 => return Ok(MsrEffect::None),
            index::PRED_CMD if self.config.cpuid.has_prediction_barrier() => {
                return match value {
                    0 => Ok(MsrEffect::None),
                    IBPB => Ok(MsrEffect::PredictionBarrier),
                    _ => Err(GeneralProtection),
                };
            }
            index::KVM_SYSTEM_TIME => {
                self.system_clock.set_register(value);
                self.write_system_clock(context);
                return Ok(MsrEffect::None);
            }
            index::KVM_WALL_CLOCK => {
                write_wall_clock(context.memory, value, self.config.host, &self.config.clock);
                return Ok(MsrEffect::None);
            }
            _ => {}
        }
        let address_bits = self.config.cpuid.physical_address_bits();
        self.mtrrs
            .write(msr, value, address_bits)
            .or_else(|| self.machine_check.write(msr, value))
            .or_else(|| self.vendor.write(msr, value, &self.config.cpuid))
            .unwrap_or(Err(GeneralProtection))
            .map(|()| MsrEffect::None)
    }

    /// Takes the state out.
    pub fn save(&self) -> VcpuMsrsState {
        let Self { config: _, tsc_offset: _, mtrrs, machine_check, vendor, system_clock } = self;
        VcpuMsrsState {
            guest_tsc: self.guest_tsc(),
            mtrrs: *mtrrs,
            machine_check: *machine_check,
            vendor: *vendor,
            system_time: system_clock.register(),
        }
    }

    /// Puts saved state in: the guest's TSC goes on from where it was. The caller loads
    /// [`VcpuMsrs::tsc_offset`] into the hardware afterwards.
    pub fn restore(&mut self, state: &VcpuMsrsState, context: &mut MsrContext<'_>) {
        let VcpuMsrsState { guest_tsc, mtrrs, machine_check, vendor, system_time } = state;
        self.mtrrs = *mtrrs;
        self.machine_check = *machine_check;
        self.vendor = *vendor;
        self.system_clock.set_register(*system_time);
        let _ = self.write_tsc(*guest_tsc, context);
    }

    fn guest_tsc(&self) -> u64 {
        self.config.host.tsc().0.wrapping_add(self.tsc_offset)
    }

    fn write_tsc(&mut self, value: u64, context: &mut MsrContext<'_>) -> MsrEffect {
        self.tsc_offset = value.wrapping_sub(self.config.host.tsc().0);
        context.apic.set_tsc_offset(self.tsc_offset);
        self.write_system_clock(context);
        MsrEffect::TscOffset(self.tsc_offset)
    }

    fn write_system_clock(&mut self, context: &mut MsrContext<'_>) {
        self.system_clock.publish(context.memory, &self.config.clock, self.tsc_offset);
    }
}
