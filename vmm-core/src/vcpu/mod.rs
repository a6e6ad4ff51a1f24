// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual CPU: its loop, and what it does at each exit.
//!
//! A vCPU is owned by the thread that runs it. What others send it comes through its link,
//! its local APIC's inbox and the VM's timers, and is taken up between exits.

mod activity;
mod apic;
mod control;
mod deadline;
mod dispatch;
mod entry;
mod events;
#[cfg(feature = "fault-injection")]
mod fault_injection;
#[cfg(any(test, feature = "test-support"))]
#[allow(clippy::unwrap_used, reason = "a model fails by panicking, as a test does")]
pub(crate) mod hostile;
mod instruction;
mod interpret;
mod known_code;
mod memory;
mod msr;
mod port;
mod shadow;
mod task;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use alloc::sync::Arc;

use host_iface::{CpuId, HostError, Tsc};

use crate::{
    EndReason, VcpuLink,
    apic::{LocalApic, LocalApicView, VectorSet},
    backend::{ApicRole, VcpuBackend},
    boot::InitialState,
    msr::{MsrContext, MsrEffect, VcpuMsrs, VcpuMsrsConfig},
    paging::walk::PagingFeatures,
    state::SegmentRegister,
    statistics::{ExitReason, VcpuStatistics},
    vm::VmCore,
};

use activity::Activity;
use events::PendingEvents;
#[cfg(feature = "fault-injection")]
pub use fault_injection::EntryFault;
use known_code::KnownCode;
use shadow::ShadowState;

/// What a vCPU is made of.
pub(crate) struct VcpuParts<V> {
    pub core: Arc<VmCore>,
    pub index: u32,
    pub hardware: V,
    pub apic: LocalApic,
}

/// One virtual CPU.
pub struct Vcpu<V: VcpuBackend> {
    core: Arc<VmCore>,
    index: u32,
    /// Where the vCPU runs.
    cpu: CpuId,
    link: Arc<VcpuLink>,
    hardware: V,
    apic: LocalApic,
    msrs: VcpuMsrs,
    paging: PagingFeatures,
    activity: Activity,
    pending: PendingEvents,
    /// The preparations for the last entry hold for the next one, too.
    settled: bool,
    /// What the hardware does of the local APIC's work.
    apic_role: ApicRole,
    /// Interrupts that the hardware was given to deliver, or made itself, and has not.
    handed_over: VectorSet,
    /// The earliest deadline, for which a timer is armed while the vCPU runs or waits.
    armed: Option<Tsc>,
    /// Deadline that the host's timer is armed for.
    host_timer: Option<Tsc>,
    /// The earliest deadline of the VM's devices, if this vCPU serves them.
    device_deadline: Option<Tsc>,
    /// The time-stamp counter when the guest last exited, or the gate last stayed closed.
    now: Tsc,
    statistics: VcpuStatistics,
    last_exit: Option<ExitReason>,
    /// Where the guest goes on behind an instruction that the emulator handed back as an exit.
    intercepted_next: Option<u64>,
    /// Accesses to the control block up to the last entry.
    accesses: u64,
    /// The instructions that exited of late.
    known_code: KnownCode,
    #[cfg(feature = "fault-injection")]
    entry_fault: Option<EntryFault>,
    shadow: ShadowState,
}

impl<V: VcpuBackend> Vcpu<V> {
    /// # Errors
    /// [`HostError::OutOfHeap`].
    pub(crate) fn new(parts: VcpuParts<V>) -> Result<Self, HostError> {
        let VcpuParts { core, index, hardware, mut apic } = parts;
        let config =
            VcpuMsrsConfig { host: core.host, clock: core.clock, cpuid: core.cpuid.clone() };
        let msrs = VcpuMsrs::new(config);
        apic.set_tsc_offset(msrs.tsc_offset());
        let paging = core.cpuid.paging_features();
        let mut vcpu = Self {
            cpu: core.host.current_cpu(),
            link: core.links[index as usize].clone(),
            hardware,
            apic,
            msrs,
            paging,
            activity: if index == 0 { Activity::Running } else { Activity::WaitForStartup },
            pending: PendingEvents::default(),
            settled: false,
            apic_role: ApicRole::default(),
            handed_over: VectorSet::default(),
            armed: None,
            host_timer: None,
            device_deadline: None,
            now: core.host.tsc(),
            statistics: VcpuStatistics::new()?,
            last_exit: None,
            intercepted_next: None,
            accesses: 0,
            known_code: KnownCode::new(core.clone()),
            #[cfg(feature = "fault-injection")]
            entry_fault: None,
            shadow: ShadowState::default(),
            core,
            index,
        };
        vcpu.hardware.set_tsc_offset(vcpu.msrs.tsc_offset());
        vcpu.set_reset_state(&InitialState::reset());
        Ok(vcpu)
    }

    /// Index in the VM.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What the vCPU has done so far.
    pub fn statistics(&self) -> &VcpuStatistics {
        &self.statistics
    }

    /// What there is to see of the local APIC.
    pub fn local_apic(&mut self) -> LocalApicView {
        self.apic.view()
    }

    /// Size of control blocks and save areas, in bytes.
    pub fn control_bytes(&self) -> usize {
        self.hardware.control_bytes()
    }

    /// The hardware that the vCPU runs on, for tests of crates above.
    #[cfg(feature = "mock-backend")]
    pub fn hardware(&mut self) -> &mut V {
        &mut self.hardware
    }

    /// Leaves the local APIC as a PC's firmware does, for guests that are started without
    /// firmware.
    pub fn apply_firmware_defaults(&mut self) {
        self.apic.firmware_defaults();
    }

    /// Sets the architectural state in which the vCPU begins.
    pub fn set_initial_state(&mut self, state: &InitialState) {
        const SEGMENTS: [SegmentRegister; 8] = [
            SegmentRegister::Es,
            SegmentRegister::Cs,
            SegmentRegister::Ss,
            SegmentRegister::Ds,
            SegmentRegister::Fs,
            SegmentRegister::Gs,
            SegmentRegister::Ldtr,
            SegmentRegister::Tr,
        ];
        for (register, segment) in SEGMENTS.into_iter().zip(state.segments) {
            self.hardware.set_segment(register, segment);
        }
        for (register, value) in crate::state::Gpr::ALL.into_iter().zip(state.gprs) {
            self.hardware.set_gpr(register, value);
        }
        self.hardware.set_rip(state.rip);
        self.hardware.set_rflags(state.rflags);
        self.hardware.set_descriptor_tables(state.gdtr, state.idtr);
        self.hardware.set_control_registers(state.control);
        self.shadow.root_is_old = true;
    }

    /// Runs the vCPU on the calling CPU until its VM ends. The backend was prepared there by
    /// [`Backend::enter_cpu`](crate::backend::Backend::enter_cpu).
    pub fn run(&mut self) {
        if self.arrive() {
            while self.turn() {}
            self.depart();
        }
    }

    /// Comes to the calling CPU; false, and the VM has ended, if that is not prepared for guests.
    fn arrive(&mut self) -> bool {
        crate::emulate::prepare();
        self.cpu = self.core.host.current_cpu();
        if !self.hardware.load() {
            let why = "the CPU was not prepared for guests".into();
            self.end(EndReason::EntryFailure { vcpu: self.index, why });
            return false;
        }
        if self.core.cpuid.host_has_prediction_barrier() {
            // Another VM may have run here.
            self.hardware.prediction_barrier();
        }
        true
    }

    /// Once through the loop; false if the VM has ended.
    #[inline(always)]
    fn turn(&mut self) -> bool {
        // Looked at after the attention flag was taken: who ends the VM sets that flag
        // last, so either it closes the gate or the end is seen here.
        self.take_up_work();
        if self.core.control.ended().is_some() {
            return false;
        }
        match self.activity {
            Activity::Running if self.hardware.can_enter() => self.enter(),
            Activity::Running => self.interpret(),
            Activity::Halted | Activity::WaitForStartup => self.wait(),
        }
        true
    }

    /// Leaves the CPU.
    fn depart(&mut self) {
        self.close_exit(self.core.host.tsc());
        self.hardware.put();
        self.armed = None;
        self.cancel_host_timer();
    }

    /// Looks at all that may have come from outside since the last entry.
    fn take_up_work(&mut self) {
        if self.armed.is_some_and(|deadline| deadline <= self.now) {
            self.deadline_came();
            self.apic.expire(self.now);
            if self.device_deadline.is_some_and(|deadline| deadline <= self.now) {
                self.core.timers.expire(self.core.clock.now());
            }
        }
        if self.link.take_attention() {
            self.take_messages();
        }
        if self.serves_devices() {
            self.follow_lint0();
        }
        self.apic.collect();
        self.follow_deadline();
    }

    /// The first vCPU serves the timers, the console and the 8259A pair.
    fn serves_devices(&self) -> bool {
        self.index == 0
    }

    fn end(&self, reason: EndReason) {
        self.core.control.end(reason);
    }

    /// Executes an MSR write that changes more than the register.
    fn apply(&mut self, effect: MsrEffect) {
        match effect {
            MsrEffect::None => {}
            MsrEffect::TscOffset(offset) => self.hardware.set_tsc_offset(offset),
            MsrEffect::PredictionBarrier => self.hardware.prediction_barrier(),
        }
    }

    fn msr_parts(&mut self) -> (&mut VcpuMsrs, MsrContext<'_>) {
        let context =
            MsrContext { apic: &mut self.apic, memory: self.core.live_memory(self.index) };
        (&mut self.msrs, context)
    }
}
