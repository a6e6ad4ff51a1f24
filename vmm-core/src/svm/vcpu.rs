// SPDX-License-Identifier: MIT OR Apache-2.0
//! One vCPU on SVM: its control block, and its way into the guest and back.

use alloc::{boxed::Box, sync::Arc};

use host_iface::{CpuId, Host, HostError, HostPhysAddr, PageRequest};

use super::{
    asid::Asid,
    capability::{Capabilities, SvmFeatures},
    cpu::{PerCpu, per_cpu},
    decode,
    entry_check::{self, EntryState},
    nmi::NmiBlocking,
    permission::PermissionMaps,
    shadow::ShadowedRegisters,
    step::Step,
    switch::{GuestRegisters, SwitchContext, enter_guest},
    vmcb::{EventInfo, ExitCode, TaskSwitchInfo, Vmcb, VmcbSegment},
};
use crate::{
    Event, Exit,
    backend::{EntryGate, HardwareMsr, Interruptibility, VcpuBackend, VcpuSetup},
    cpu_interrupts,
    debug::BreakpointAddresses,
    fpu::{FpuState, FpuSupport},
    host_registers,
    memory::OwnedPages,
    state::{
        ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentRegister, cr0,
        efer, rflags,
    },
    tsc_aux::TscAux,
};

const DEBUG_VECTOR: u32 = 1;

/// Hardware state of one vCPU.
pub struct SvmVcpu {
    host: &'static dyn Host,
    pub(super) capabilities: Capabilities,
    pub(super) cpus: Arc<Box<[PerCpu]>>,
    /// Keeps the maps that the control block points to.
    _maps: Arc<PermissionMaps>,
    vmcb: OwnedPages,
    context: SwitchContext,
    fpu: FpuState,
    breakpoints: BreakpointAddresses,
    tsc_aux: TscAux,
    /// The whole register, of which the VMCB holds the class.
    task_priority: u8,
    /// Where the vCPU is loaded, and so which CPU's pool its identifier is from.
    pub(super) cpu: Option<CpuId>,
    pub(super) asid: Asid,
    pub(super) asid_cpu: Option<CpuId>,
    pub(super) flush_wanted: bool,
    /// The guest's control registers, with shadow paging.
    pub(super) shadowed: Option<ShadowedRegisters>,
    pub(super) nmi: NmiBlocking,
    pub(super) step: Option<Step>,
    /// CR2 of the CPU is not what the control block says.
    cr2_differs: bool,
    /// Where the guest was entered in an interrupt shadow that the CPU does not keep.
    shadow_at: Option<u64>,
    /// The entry is only to deliver an event: another waits behind it.
    exit_at_once: bool,
    injected: Option<Event>,
    interrupted: Option<Event>,
    /// It is the event that the last entry injected.
    interrupted_at_entry: bool,
}

impl SvmVcpu {
    pub(super) fn new(
        host: &'static dyn Host,
        capabilities: Capabilities,
        fpu: FpuSupport,
        cpus: Arc<Box<[PerCpu]>>,
        maps: Arc<PermissionMaps>,
        setup: VcpuSetup,
    ) -> Result<Self, HostError> {
        let vmcb = OwnedPages::zeroed(host, PageRequest::contiguous(1))?;
        let context = SwitchContext {
            guest_vmcb: vmcb.address().as_u64(),
            host_vmcb: 0,
            registers: GuestRegisters::default(),
        };
        let mut vcpu = Self {
            host,
            capabilities,
            cpus,
            vmcb,
            context,
            fpu: FpuState::new(host, fpu)?,
            breakpoints: BreakpointAddresses::default(),
            tsc_aux: TscAux::new(capabilities.tsc_aux),
            task_priority: 0,
            cpu: None,
            asid: Asid::default(),
            asid_cpu: None,
            flush_wanted: false,
            shadowed: None,
            nmi: NmiBlocking::Unblocked,
            step: None,
            cr2_differs: false,
            shadow_at: None,
            exit_at_once: false,
            injected: None,
            interrupted: None,
            interrupted_at_entry: false,
            _maps: maps.clone(),
        };
        vcpu.set_intercepts();
        vcpu.set_controls(&maps, setup);
        Ok(vcpu)
    }

    pub(super) fn vmcb(&self) -> &Vmcb {
        // SAFETY: the page is a valid control block, ours alone; the CPU writes it only
        // during VMRUN and VMSAVE, when `run` holds the vCPU exclusively and no reference
        // is live.
        unsafe { self.vmcb.as_ptr().cast().as_ref() }
    }

    pub(super) fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { self.vmcb.as_ptr().cast().as_mut() }
    }

    /// The exit as the neutral layer sees it, after the backend's own part.
    fn take_exit(&mut self, entered: &EntryState, entry_rip: u64) -> Exit {
        let save = &self.vmcb().save;
        let (rip, cr2) = (save.rip, save.cr2);
        let control = &self.vmcb().control;
        let (code, info) = (control.exit_code, control.exit_interrupt_info);
        if ExitCode::is_invalid(code) {
            let failed = entry_check::first_failure(entered);
            self.distrust_tlb();
            return Exit::EntryFailure(failed);
        }
        self.interrupted_at_entry = self.injected.take().is_some() && rip == entry_rip;
        self.interrupted = decode::interrupted_event(info, cr2).filter(|event| {
            // Other than exceptions all are injected.
            self.interrupted_at_entry || matches!(event, Event::Exception(_))
        });
        let control = &mut self.vmcb_mut().control;
        control.event_injection = EventInfo::new();
        self.restore_lost_shadow(rip);
        let trapped = code == ExitCode::EXCEPTION_0 + u64::from(DEBUG_VECTOR);
        if trapped {
            self.complete_debug_registers();
        }
        let step = self.end_step(trapped);
        if code == ExitCode::IRET {
            self.nmi = self.nmi.iret_begins(rip);
            self.intercept_iret(false);
        } else {
            self.nmi.guest_moved_to(rip);
        }
        if code == ExitCode::TASK_SWITCH {
            self.note_resume_flag();
        }
        match step {
            Some(step) if trapped => self.finish_step(step),
            _ => match decode::exit(&self.vmcb().control) {
                Exit::InvalidatePage { .. } => Exit::InvalidatePage { address: self.operand() },
                exit => exit,
            },
        }
    }

    /// Puts RFLAGS.RF to where a task switch that is not intercepted would save it from.
    fn note_resume_flag(&mut self) {
        let Vmcb { control, save } = self.vmcb_mut();
        let resume = TaskSwitchInfo::from_bits(control.exit_info2).resume();
        save.rflags = save.rflags & !rflags::RF | if resume { rflags::RF } else { 0 };
    }

    /// Linear address of INVLPG's operand, which a CPU with decode assists tells.
    fn operand(&self) -> Option<u64> {
        let told = self.capabilities.has(SvmFeatures::DECODE_ASSISTS);
        told.then_some(self.vmcb().control.exit_info1)
    }

    /// QEMU 7.2 ends an interrupt shadow when it enters the guest. If nothing was executed
    /// since, the guest is still in it.
    fn restore_lost_shadow(&mut self, rip: u64) {
        if self.shadow_at.take() == Some(rip) {
            self.vmcb_mut().control.interrupt_shadow |= 1;
        }
    }

    /// VMRUN loads CR2, but not on Bochs 2.7. Other than by page faults of the guest it
    /// changes seldom enough to be loaded everywhere.
    fn load_cr2(&mut self) {
        if core::mem::take(&mut self.cr2_differs) {
            // SAFETY: interrupts are disabled, so no fault of the host is in progress.
            unsafe { host_registers::write_cr2(self.vmcb().save.cr2) }
        }
    }

    fn in_shadow(&self) -> bool {
        self.vmcb().control.interrupt_shadow & 1 != 0
    }

    fn segment_slot(&mut self, register: SegmentRegister) -> &mut VmcbSegment {
        let save = &mut self.vmcb_mut().save;
        match register {
            SegmentRegister::Es => &mut save.es,
            SegmentRegister::Cs => &mut save.cs,
            SegmentRegister::Ss => &mut save.ss,
            SegmentRegister::Ds => &mut save.ds,
            SegmentRegister::Fs => &mut save.fs,
            SegmentRegister::Gs => &mut save.gs,
            SegmentRegister::Ldtr => &mut save.ldtr,
            SegmentRegister::Tr => &mut save.tr,
        }
    }
}

impl VcpuBackend for SvmVcpu {
    const KEEPS_PAGE_DIRECTORY_POINTERS: bool = false;

    fn load(&mut self) -> bool {
        let cpu = self.host.current_cpu();
        let Some(prepared) = per_cpu(&self.cpus, cpu).filter(|cpu| cpu.is_prepared()) else {
            return false;
        };
        self.context.host_vmcb = prepared.host_vmcb.address().as_u64();
        self.cpu = Some(cpu);
        self.cr2_differs = true;
        self.fpu.load();
        self.breakpoints.load();
        self.tsc_aux.load();
        true
    }

    fn put(&mut self) {
        self.fpu.put();
        self.breakpoints.put();
        self.tsc_aux.put();
        self.cpu = None;
    }

    fn run(&mut self, gate: &mut EntryGate<'_>) -> Exit {
        if self.cpu.is_none() {
            return Exit::EntryFailure("the vCPU is loaded on no CPU");
        }
        if self.capabilities.loses_interrupt_shadow && self.in_shadow() {
            self.shadow_at = Some(self.vmcb().save.rip);
        }
        cpu_interrupts::disable();
        if !gate.opens() {
            cpu_interrupts::enable();
            self.shadow_at = None;
            self.end_step(false);
            self.interrupted = self.injected.take();
            self.interrupted_at_entry = true;
            self.vmcb_mut().control.event_injection = EventInfo::new();
            return Exit::NotEntered;
        }
        self.prepare_tlb();
        if let (true, Some(cpu)) = (core::mem::take(&mut self.exit_at_once), self.cpu) {
            // Taken only in the guest, after the event is delivered there.
            self.host.kick(cpu);
        }
        self.load_cr2();
        let entered = EntryState::from(self.vmcb());
        let rip = self.vmcb().save.rip;
        // SAFETY: interrupts are disabled. The vCPU is loaded on this CPU, so `load` found it
        // prepared: SVM is on, and `host_vmcb` was filled here. The
        // intercepts are those of `set_intercepts`, and the nested tables, or the shadow tables
        // that the guest cannot replace, map the VM's own memory only.
        unsafe { enter_guest(&mut self.context) }
        self.take_exit(&entered, rip)
    }

    fn gpr(&self, register: Gpr) -> u64 {
        match register {
            Gpr::Rax => self.vmcb().save.rax,
            Gpr::Rsp => self.vmcb().save.rsp,
            other => self.context.registers.by_encoding[other as usize],
        }
    }

    fn set_gpr(&mut self, register: Gpr, value: u64) {
        match register {
            Gpr::Rax => self.vmcb_mut().save.rax = value,
            Gpr::Rsp => self.vmcb_mut().save.rsp = value,
            other => self.context.registers.by_encoding[other as usize] = value,
        }
    }

    fn rip(&self) -> u64 {
        self.vmcb().save.rip
    }

    fn set_rip(&mut self, value: u64) {
        self.vmcb_mut().save.rip = value;
    }

    fn rflags(&self) -> u64 {
        self.vmcb().save.rflags
    }

    fn set_rflags(&mut self, value: u64) {
        self.vmcb_mut().save.rflags = value | rflags::FIXED;
    }

    fn segment(&self, register: SegmentRegister) -> Segment {
        let save = &self.vmcb().save;
        match register {
            SegmentRegister::Es => save.es,
            SegmentRegister::Cs => save.cs,
            SegmentRegister::Ss => save.ss,
            SegmentRegister::Ds => save.ds,
            SegmentRegister::Fs => save.fs,
            SegmentRegister::Gs => save.gs,
            SegmentRegister::Ldtr => save.ldtr,
            SegmentRegister::Tr => save.tr,
        }
        .into()
    }

    fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        *self.segment_slot(register) = segment.into();
        if register == SegmentRegister::Ss {
            self.vmcb_mut().save.cpl = segment.attributes.dpl();
        }
    }

    fn descriptor_tables(&self) -> (DescriptorTable, DescriptorTable) {
        let save = &self.vmcb().save;
        (save.gdtr.into(), save.idtr.into())
    }

    fn set_descriptor_tables(&mut self, gdtr: DescriptorTable, idtr: DescriptorTable) {
        let save = &mut self.vmcb_mut().save;
        save.gdtr = gdtr.into();
        save.idtr = idtr.into();
    }

    fn control_registers(&self) -> ControlRegisters {
        let save = &self.vmcb().save;
        if let Some(shadowed) = &self.shadowed {
            return shadowed.view(save.cr2);
        }
        ControlRegisters {
            cr0: save.cr0,
            cr2: save.cr2,
            cr3: save.cr3,
            cr4: save.cr4,
            efer: save.efer & !efer::SVME,
        }
    }

    fn set_control_registers(&mut self, value: ControlRegisters) {
        self.cr2_differs |= self.vmcb().save.cr2 != value.cr2;
        if let Some(mut shadowed) = self.shadowed {
            let Vmcb { control, save } = self.vmcb_mut();
            shadowed.set(value, save, control);
            self.shadowed = Some(shadowed);
            return;
        }
        let save = &mut self.vmcb_mut().save;
        save.cr0 = value.cr0 | cr0::ET;
        save.cr2 = value.cr2;
        save.cr3 = value.cr3;
        save.cr4 = value.cr4;
        save.efer = value.efer | efer::SVME;
        self.flush_wanted = true;
    }

    fn set_shadow_root(&mut self, root: HostPhysAddr) {
        if let Some(mut shadowed) = self.shadowed {
            self.flush_wanted |= shadowed.set_root(root, &mut self.vmcb_mut().save);
            self.shadowed = Some(shadowed);
        }
    }

    fn cr4(&self) -> u64 {
        self.shadowed.as_ref().map_or(self.vmcb().save.cr4, ShadowedRegisters::cr4)
    }

    fn cpl(&self) -> u8 {
        self.vmcb().save.cpl
    }

    fn debug_status_control(&self) -> (u64, u64) {
        (self.vmcb().save.dr6, self.vmcb().save.dr7)
    }

    fn set_debug_status_control(&mut self, dr6: u64, dr7: u64) {
        let save = &mut self.vmcb_mut().save;
        save.dr6 = dr6;
        save.dr7 = dr7;
    }

    fn msr(&self, msr: HardwareMsr) -> u64 {
        let save = &self.vmcb().save;
        match msr {
            HardwareMsr::Star => save.star,
            HardwareMsr::Lstar => save.lstar,
            HardwareMsr::Cstar => save.cstar,
            HardwareMsr::Sfmask => save.sfmask,
            HardwareMsr::KernelGsBase => save.kernel_gs_base,
            HardwareMsr::SysenterCs => save.sysenter_cs,
            HardwareMsr::SysenterEsp => save.sysenter_esp,
            HardwareMsr::SysenterEip => save.sysenter_eip,
            HardwareMsr::Pat => save.pat,
            HardwareMsr::DebugCtl => save.debug_ctl,
        }
    }

    fn set_msr(&mut self, msr: HardwareMsr, value: u64) {
        let save = &mut self.vmcb_mut().save;
        match msr {
            HardwareMsr::Star => save.star = value,
            HardwareMsr::Lstar => save.lstar = value,
            HardwareMsr::Cstar => save.cstar = value,
            HardwareMsr::Sfmask => save.sfmask = value,
            HardwareMsr::KernelGsBase => save.kernel_gs_base = value,
            HardwareMsr::SysenterCs => save.sysenter_cs = value,
            HardwareMsr::SysenterEsp => save.sysenter_esp = value,
            HardwareMsr::SysenterEip => save.sysenter_eip = value,
            HardwareMsr::Pat => save.pat = value,
            HardwareMsr::DebugCtl => save.debug_ctl = value,
        }
    }

    fn xcr0(&self) -> u64 {
        self.fpu.xcr0()
    }

    fn set_xcr0(&mut self, value: u64) {
        self.fpu.set_xcr0(value);
    }

    fn tsc_aux(&self) -> u32 {
        self.tsc_aux.get()
    }

    fn set_tsc_aux(&mut self, value: u32) {
        self.tsc_aux.set(value);
    }

    fn tsc_offset(&self) -> u64 {
        self.vmcb().control.tsc_offset
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb_mut().control.tsc_offset = offset;
    }

    fn task_priority(&self) -> u8 {
        // The hardware holds the class alone. As long as that is the same, so is the rest.
        let class = self.vmcb().control.interrupt_control.tpr() & 0xF;
        if class == self.task_priority >> 4 { self.task_priority } else { class << 4 }
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.task_priority = priority;
        self.vmcb_mut().control.interrupt_control.set_tpr(priority >> 4);
    }

    fn interruptibility(&self) -> Interruptibility {
        Interruptibility {
            interrupts_enabled: self.vmcb().save.rflags & rflags::IF != 0,
            in_shadow: self.in_shadow(),
            nmi_blocked: self.nmi.is_blocked(),
        }
    }

    fn clear_interrupt_shadow(&mut self) {
        self.vmcb_mut().control.interrupt_shadow &= !1;
    }

    fn begin_interrupt_shadow(&mut self, _: InterruptShadow) {
        self.vmcb_mut().control.interrupt_shadow |= 1;
    }

    fn inject(&mut self, event: Event) {
        self.injected = Some(event);
        self.vmcb_mut().control.event_injection = decode::injection(event);
        match event {
            Event::Nmi => {
                self.nmi = NmiBlocking::Blocked;
                self.intercept_iret(true);
            }
            Event::Exception(exception) => {
                if let Some(address) = exception.fault_address {
                    self.vmcb_mut().save.cr2 = address;
                    self.cr2_differs = true;
                }
            }
            Event::Interrupt(_) | Event::SoftwareInterrupt { .. } => {}
        }
    }

    fn take_interrupted_event(&mut self) -> Option<Event> {
        let event = self.interrupted.take();
        if event == Some(Event::Nmi) {
            self.set_nmi_blocking(false);
        }
        event
    }

    /// Bochs 2.7 sets EXITINTINFO to what it held before when the CPU delivers a software
    /// interrupt.
    fn may_have_interrupted_software(&self) -> bool {
        !self.interrupted_at_entry
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        // A CPU that loses the shadow would take the virtual interrupt within it.
        let step = wanted && self.capabilities.loses_interrupt_shadow && self.in_shadow();
        if step && self.step.is_none() {
            self.begin_step();
        }
        let wanted = wanted && !step;
        // A virtual interrupt that ignores the task priority; its own exit comes before it
        // would be delivered (AMD APM vol. 2, 15.21.4).
        let control = &mut self.vmcb_mut().control;
        control.intercepts1.set_virtual_interrupt(wanted);
        control.interrupt_control =
            control.interrupt_control.with_irq(wanted).with_ignore_tpr(wanted).with_priority(0xF);
    }

    fn set_nmi_blocking(&mut self, blocked: bool) {
        self.nmi = if blocked { NmiBlocking::Blocked } else { NmiBlocking::Unblocked };
        self.intercept_iret(blocked);
    }

    fn request_nmi_window(&mut self, wanted: bool) {
        let returning = matches!(self.nmi, NmiBlocking::Returning { .. });
        // Behind another event there is no window to ask for.
        self.exit_at_once = wanted && self.injected.is_some() && !self.nmi.is_blocked();
        let in_the_way = returning || self.in_shadow() && !self.nmi.is_blocked();
        if wanted && in_the_way && self.injected.is_none() && self.step.is_none() {
            self.begin_step();
        }
    }

    fn watch_task_priority(&mut self, class: Option<u8>) {
        let control = &mut self.vmcb_mut().control;
        // QEMU 7.2 may abort when the guest writes CR8 while a virtual interrupt waits.
        let wanted = class.is_some() || control.interrupt_control.irq();
        control.cr_writes = (control.cr_writes & !(1 << 8)) | u16::from(wanted) << 8;
    }

    fn next_rip(&self) -> Option<u64> {
        let control = &self.vmcb().control;
        if control.exit_code == ExitCode::PORT_IO {
            return Some(control.exit_info2);
        }
        let saved = self.capabilities.has(SvmFeatures::NRIPS) && control.next_rip != 0;
        saved.then_some(control.next_rip)
    }

    fn instruction_bytes(&self) -> Option<&[u8]> {
        let control = &self.vmcb().control;
        // Other exits leave the bytes of an earlier instruction there.
        let filled = [ExitCode::NESTED_PAGE_FAULT, ExitCode::PAGE_FAULT];
        let filled = filled.contains(&control.exit_code);
        if !filled || !self.capabilities.has(SvmFeatures::DECODE_ASSISTS) {
            return None;
        }
        let count = usize::from(control.fetched_count).min(control.fetched_bytes.len());
        (count > 0).then(|| &control.fetched_bytes[..count])
    }

    fn control_bytes(&self) -> usize {
        self.vmcb.bytes() + self.fpu.bytes()
    }

    fn flush_tlb(&mut self) {
        self.flush_wanted = true;
    }

    #[cfg(feature = "fault-injection")]
    fn spoil_entry(&mut self, fault: &str) -> bool {
        self.spoil(fault)
    }
}
