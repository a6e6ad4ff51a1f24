// SPDX-License-Identifier: MIT OR Apache-2.0
//! One vCPU on SVM: its control block, and its way into the guest and back.

use alloc::{boxed::Box, sync::Arc};

use host_iface::{CpuId, Host, HostError, HostPhysAddr, PageRequest};

use super::{
    asid::Asid,
    capability::{Capabilities, SvmFeatures},
    cpu::{PerCpu, per_cpu},
    decode,
    entry::Prepared,
    long_mode,
    nmi::NmiBlocking,
    permission::PermissionMaps,
    shadow::ShadowedRegisters,
    step::Step,
    switch::{GuestRegisters, SwitchContext},
    vmcb::{ExitCode, Vmcb, VmcbSegment},
};
use crate::{
    BriefExit, Event, Exit,
    backend::{EntryGate, HardwareMsr, Interruptibility, VcpuBackend, VcpuSetup},
    debug::BreakpointAddresses,
    fpu::{FpuState, FpuSupport},
    memory::OwnedPages,
    state::{
        ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentRegister, cr0,
        cr4, efer, rflags,
    },
    tsc_aux::TscAux,
};

/// Hardware state of one vCPU.
pub struct SvmVcpu {
    pub(super) host: &'static dyn Host,
    pub(super) capabilities: Capabilities,
    pub(super) cpus: Arc<Box<[PerCpu]>>,
    /// Keeps the maps that the control block points to.
    _maps: Arc<PermissionMaps>,
    vmcb: OwnedPages,
    pub(super) context: SwitchContext,
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
    /// EFER.LME of the guest is set, but not in the control block.
    lme_hidden: bool,
    pub(super) nmi: NmiBlocking,
    pub(super) step: Option<Step>,
    /// CR2 of the CPU is not what the control block says.
    pub(super) cr2_differs: bool,
    /// Where the guest was entered in an interrupt shadow that the CPU does not keep.
    pub(super) shadow_at: Option<u64>,
    /// The entry is only to deliver an event: another waits behind it.
    pub(super) exit_at_once: bool,
    pub(super) injected: Option<Event>,
    pub(super) interrupted: Option<Event>,
    /// It is the event that the last entry injected.
    pub(super) interrupted_at_entry: bool,
    pub(super) prepared: Prepared,
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
            lme_hidden: false,
            nmi: NmiBlocking::Unblocked,
            step: None,
            cr2_differs: false,
            shadow_at: None,
            exit_at_once: false,
            injected: None,
            interrupted: None,
            interrupted_at_entry: false,
            prepared: Prepared::default(),
            _maps: maps.clone(),
        };
        vcpu.set_intercepts();
        vcpu.set_controls(&maps, setup);
        Ok(vcpu)
    }

    #[inline]
    pub(super) fn vmcb(&self) -> &Vmcb {
        // SAFETY: the page is a valid control block, ours alone; the CPU writes it only
        // during VMRUN and VMSAVE, when `run` holds the vCPU exclusively and no reference
        // is live.
        unsafe { self.vmcb.as_ptr().cast().as_ref() }
    }

    #[inline]
    pub(super) fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { self.vmcb.as_ptr().cast().as_mut() }
    }

    #[inline]
    pub(super) fn in_shadow(&self) -> bool {
        self.vmcb().control.interrupt_shadow & 1 != 0
    }

    /// CS.L.
    #[inline]
    fn is_long_segment(&self) -> bool {
        // Attributes of a segment as the VMCB has them.
        const LONG: u16 = 1 << 9;
        self.vmcb().save.cs.attributes & LONG != 0
    }

    #[inline]
    fn is_code_by_four_levels(&self, efer: u64, cr4: u64) -> bool {
        efer & efer::LMA != 0 && cr4 & cr4::LA57 == 0 && self.is_long_segment()
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
    const HAS_APIC_ROLES: bool = false;

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
        self.enter(gate)
    }

    #[inline]
    fn resume(&mut self, gate: &mut EntryGate<'_>, exit: &mut Exit) -> Option<BriefExit> {
        self.enter_again(gate, exit)
    }

    #[inline]
    fn can_resume(&self) -> bool {
        self.prepared.plain && !self.has_tlb_work()
    }

    #[inline]
    fn gpr(&self, register: Gpr) -> u64 {
        match register {
            Gpr::Rax => self.vmcb().save.rax,
            Gpr::Rsp => self.vmcb().save.rsp,
            other => self.context.registers.by_encoding[other as usize],
        }
    }

    #[inline]
    fn set_gpr(&mut self, register: Gpr, value: u64) {
        match register {
            Gpr::Rax => self.vmcb_mut().save.rax = value,
            Gpr::Rsp => self.vmcb_mut().save.rsp = value,
            other => self.context.registers.by_encoding[other as usize] = value,
        }
    }

    #[inline]
    fn rip(&self) -> u64 {
        self.vmcb().save.rip
    }

    #[inline]
    fn set_rip(&mut self, value: u64) {
        self.vmcb_mut().save.rip = value;
    }

    #[inline]
    fn rflags(&self) -> u64 {
        self.vmcb().save.rflags
    }

    #[inline]
    fn set_rflags(&mut self, value: u64) {
        self.vmcb_mut().save.rflags = value | rflags::FIXED;
    }

    #[inline]
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

    #[inline]
    fn control_registers(&self) -> ControlRegisters {
        let save = &self.vmcb().save;
        if let Some(shadowed) = &self.shadowed {
            return shadowed.view(save.cr2);
        }
        let held = ControlRegisters {
            cr0: save.cr0,
            cr2: save.cr2,
            cr3: save.cr3,
            cr4: save.cr4,
            efer: save.efer & !efer::SVME,
        };
        ControlRegisters { efer: long_mode::seen(&held, self.lme_hidden), ..held }
    }

    #[inline]
    fn is_64_bit_code(&self) -> bool {
        let efer = match &self.shadowed {
            Some(shadowed) => shadowed.view(0).efer,
            None => self.vmcb().save.efer,
        };
        efer & efer::LMA != 0 && self.is_long_segment()
    }

    #[inline]
    fn cr3_of_64_bit_code(&self) -> Option<u64> {
        if let Some(shadowed) = &self.shadowed {
            let ControlRegisters { cr3, cr4, efer, .. } = shadowed.view(0);
            return self.is_code_by_four_levels(efer, cr4).then_some(cr3);
        }
        let save = &self.vmcb().save;
        self.is_code_by_four_levels(save.efer, save.cr4).then_some(save.cr3)
    }

    fn set_control_registers(&mut self, value: ControlRegisters) {
        self.cr2_differs |= self.vmcb().save.cr2 != value.cr2;
        if let Some(mut shadowed) = self.shadowed {
            let Vmcb { control, save } = self.vmcb_mut();
            shadowed.set(value, save, control);
            self.shadowed = Some(shadowed);
            return;
        }
        self.lme_hidden = self.capabilities.loses_paging && long_mode::is_hidden(&value);
        let hidden = if self.lme_hidden { efer::LME } else { 0 };
        let save = &mut self.vmcb_mut().save;
        save.cr0 = value.cr0 | cr0::ET;
        save.cr2 = value.cr2;
        save.cr3 = value.cr3;
        save.cr4 = value.cr4;
        save.efer = value.efer & !hidden | efer::SVME;
        self.flush_wanted = true;
    }

    fn set_shadow_root(&mut self, root: HostPhysAddr) {
        if let Some(mut shadowed) = self.shadowed {
            self.flush_wanted |= shadowed.set_root(root, &mut self.vmcb_mut().save);
            self.shadowed = Some(shadowed);
        }
    }

    #[inline]
    fn cr4(&self) -> u64 {
        self.shadowed.as_ref().map_or(self.vmcb().save.cr4, ShadowedRegisters::cr4)
    }

    #[inline]
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

    #[inline]
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

    #[inline]
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

    #[inline]
    fn task_priority(&self) -> u8 {
        // The hardware holds the class alone. As long as that is the same, so is the rest.
        let class = self.vmcb().control.interrupt_control.tpr() & 0xF;
        if class == self.task_priority >> 4 { self.task_priority } else { class << 4 }
    }

    #[inline]
    fn may_have_new_task_priority(&self) -> bool {
        self.vmcb().control.interrupt_control.tpr() & 0xF != self.task_priority >> 4
    }

    #[inline]
    fn set_task_priority(&mut self, priority: u8) {
        self.task_priority = priority;
        self.vmcb_mut().control.interrupt_control.set_tpr(priority >> 4);
    }

    #[inline]
    fn interruptibility(&self) -> Interruptibility {
        Interruptibility {
            interrupts_enabled: self.vmcb().save.rflags & rflags::IF != 0,
            in_shadow: self.in_shadow(),
            nmi_blocked: self.nmi.is_blocked(),
        }
    }

    #[inline]
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

    #[inline]
    fn has_interrupted_event(&self) -> bool {
        self.interrupted.is_some()
    }

    #[inline]
    fn take_interrupted_event(&mut self) -> Option<Event> {
        self.interrupted?;
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

    #[inline]
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

    #[inline]
    fn request_nmi_window(&mut self, wanted: bool) {
        let returning = matches!(self.nmi, NmiBlocking::Returning { .. });
        // Behind another event there is no window to ask for.
        self.exit_at_once = wanted && self.injected.is_some() && !self.nmi.is_blocked();
        let in_the_way = returning || self.in_shadow() && !self.nmi.is_blocked();
        if wanted && in_the_way && self.injected.is_none() && self.step.is_none() {
            self.begin_step();
        }
    }

    #[inline]
    fn watch_task_priority(&mut self, class: Option<u8>) {
        let control = &mut self.vmcb_mut().control;
        // QEMU 7.2 may abort when the guest writes CR8 while a virtual interrupt waits.
        let wanted = class.is_some() || control.interrupt_control.irq();
        control.cr_writes = (control.cr_writes & !(1 << 8)) | u16::from(wanted) << 8;
    }

    #[inline]
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
