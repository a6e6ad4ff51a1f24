// SPDX-License-Identifier: MIT OR Apache-2.0
//! One vCPU on VMX: its control structure, and its way into the guest and back.

use alloc::sync::Arc;
use core::cell::Cell;

use host_iface::{HostError, HostPhysAddr};
use x86::{
    msr::{IA32_CSTAR, IA32_FMASK, IA32_KERNEL_GSBASE, IA32_LSTAR, IA32_STAR},
    vmx::vmcs::control::{EntryControls, PrimaryControls},
};

use super::{
    apic::ApicVirtualization,
    capability::Capabilities,
    cpu::Shared,
    debug_status::DebugStatus,
    decode, entry_check, ept,
    field::{Field, SegmentFields},
    host_state::HostDescriptors,
    interruptibility::SHADOW,
    length::LengthMemo,
    msr_area::{self, EferAreas},
    pause_loop,
    permission::X2ApicMsrs,
    preemption::PreemptionTimer,
    segment,
    shadow::ShadowPaging,
    switch::SwitchContext,
    switched_msrs::SwitchedMsrs,
    unpaged,
    virtual_apic::VirtualApic,
    vmcs::Vmcs,
    vpid::Vpid,
};
use crate::{
    Event, Exit,
    apic::{ApicMode, InterruptState},
    backend::{
        ApicRole, EntryGate, HardwareMsr, Interruptibility, Translation, VcpuBackend, VcpuSetup,
    },
    debug::BreakpointAddresses,
    fpu::FpuState,
    msr::PAT_RESET,
    state::{
        ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentRegister, cr0,
        dr6, dr7, efer, rflags,
    },
    tsc_aux::TscAux,
};

/// Hardware state of one vCPU.
pub struct VmxVcpu {
    pub(super) shared: Arc<Shared>,
    /// What of the CPU is used for this guest.
    pub(super) capabilities: Capabilities,
    pub(super) vmcs: Vmcs,
    pub(super) apic: ApicVirtualization,
    pub(super) timer: PreemptionTimer,
    /// Root of the VM's nested page tables; none with shadow paging.
    pub(super) nested_root: Option<HostPhysAddr>,
    pub(super) vpid: Option<Vpid>,
    /// If the VMCS does not hold EFER.
    efer_areas: Option<EferAreas>,
    pub(super) context: SwitchContext,
    fpu: FpuState,
    breakpoints: BreakpointAddresses,
    debug_status: DebugStatus,
    switched: SwitchedMsrs,
    tsc_aux: TscAux,
    /// With shadow paging.
    shadow: Option<ShadowPaging>,
    /// CR3 and EFER as the guest set them, while it runs with others.
    hidden: Option<(u64, u64)>,
    /// Can the CPU enter the guest as it is? Unknown after a change.
    enterable: Cell<Option<bool>>,
    /// Without virtual NMIs: the guest is in its handler of one.
    pub(super) handles_nmi: bool,
    /// The last exit cut short an IRET that had ended the blocking of NMIs.
    pub(super) iret_interrupted: bool,
    /// While the vCPU is loaded.
    host: Option<HostDescriptors>,
    pub(super) flush_wanted: bool,
    pub(super) shadow_ended: bool,
    pub(super) injected: Option<Event>,
    pub(super) interrupted: Option<Event>,
    pub(super) basic_reason: u16,
    pub(super) lengths: LengthMemo,
    pub(super) accesses_at_entry: u64,
}

const DEBUG_VECTOR: u32 = 1;
const PAGE_FAULT_VECTOR: u32 = 14;
const ALIGNMENT_VECTOR: u32 = 17;
const MACHINE_CHECK_VECTOR: u32 = 18;

/// The top entries of PAE paging, which the hardware loads and saves while EPT is on.
const PAGE_DIRECTORY_POINTERS: [Field; 4] =
    [Field::Pdpte0, Field::Pdpte1, Field::Pdpte2, Field::Pdpte3];

impl VmxVcpu {
    pub(super) fn new(shared: Arc<Shared>, setup: VcpuSetup) -> Result<Self, HostError> {
        let host = shared.host;
        let capabilities = shared.capabilities.for_vcpu(setup);
        let shadow = match setup.translation {
            Translation::Nested(_) => None,
            Translation::Shadow => Some(ShadowPaging::new()),
        };
        let apic_page = match capabilities.has_tpr_shadow() {
            true => Some(VirtualApic::new(host)?),
            false => None,
        };
        let timer = PreemptionTimer::new(capabilities.preemption_shift());
        let revision = capabilities.msrs.basic.revision();
        let has_vpid = capabilities.fields() & Field::Vpid.bit() != 0;
        let mut vcpu = Self {
            vmcs: Vmcs::new(host, revision, capabilities.fields())?,
            apic: ApicVirtualization::new(setup.apic, apic_page),
            timer,
            nested_root: match setup.translation {
                Translation::Nested(root) => Some(root),
                Translation::Shadow => None,
            },
            vpid: if has_vpid { shared.vpids.take() } else { None },
            efer_areas: match capabilities.switches_efer() {
                true => None,
                false => Some(EferAreas::new(host)?),
            },
            context: SwitchContext::default(),
            fpu: FpuState::new(host, shared.fpu)?,
            breakpoints: BreakpointAddresses::default(),
            debug_status: DebugStatus::new(),
            switched: SwitchedMsrs::default(),
            tsc_aux: TscAux::new(capabilities.has_tsc_aux()),
            shadow,
            hidden: None,
            enterable: Cell::new(None),
            handles_nmi: false,
            iret_interrupted: false,
            host: None,
            flush_wanted: false,
            shadow_ended: false,
            injected: None,
            interrupted: None,
            basic_reason: 0,
            lengths: LengthMemo::default(),
            accesses_at_entry: 0,
            capabilities,
            shared,
        };
        vcpu.set_controls(setup);
        vcpu.set_reset_state();
        Ok(vcpu)
    }

    /// What exits, and what an entry loads. Left to the guest is only what cannot reach beyond
    /// it: its own paging, descriptor tables, debug registers and the MSRs that are switched.
    fn set_controls(&mut self, setup: VcpuSetup) {
        use x86::vmx::vmcs::control::SecondaryControls;

        let controls = self.capabilities.controls;
        let mut secondary = controls.secondary;
        if self.vpid.is_none() {
            secondary -= SecondaryControls::ENABLE_VPID;
        }
        if setup.has_siblings && controls.pause_loop {
            secondary |= SecondaryControls::PAUSE_LOOP_EXITING;
            for (field, value) in pause_loop::FIELDS {
                self.vmcs.write(field, value);
            }
        }
        let [io_low, io_high] = self.shared.maps.io_addresses();
        let virtual_apic = self.apic.page.as_ref().map_or(0, |p| p.address().as_u64());
        let ept_pointer = self.ept_pointer(self.nested_root);
        let areas = self.efer_areas.as_ref().map(EferAreas::addresses);
        let (msr_count, [entry_area, exit_area]) = match areas {
            Some(addresses) => (msr_area::COUNT, addresses.map(|address| address.as_u64())),
            None => (0, [0; 2]),
        };
        // A guest could keep the CPU in endless delivery of #DB or #AC.
        let exceptions = 1 << DEBUG_VECTOR | 1 << ALIGNMENT_VECTOR | 1 << MACHINE_CHECK_VECTOR;
        // All page faults, as the fields that could except some by their error codes are zero.
        let page_faults = u64::from(self.shadow.is_some()) << PAGE_FAULT_VECTOR;
        for (field, value) in [
            (Field::PinControls, u64::from(controls.pin.bits())),
            (Field::PrimaryControls, u64::from(controls.primary.bits())),
            (Field::SecondaryControls, u64::from(secondary.bits())),
            (Field::ExitControls, u64::from(controls.exit.bits())),
            (Field::EntryControls, u64::from(controls.entry.bits())),
            (Field::ExceptionBitmap, exceptions | page_faults),
            (Field::IoBitmapA, io_low.as_u64()),
            (Field::IoBitmapB, io_high.as_u64()),
            (Field::MsrBitmap, self.shared.maps.msr_address(X2ApicMsrs::None).as_u64()),
            (Field::VirtualApic, virtual_apic),
            (Field::Vpid, self.vpid.as_ref().map_or(0, |vpid| u64::from(vpid.number()))),
            (Field::EptPointer, ept_pointer),
            (Field::TscOffset, setup.tsc_offset),
            (Field::EntryMsrLoadCount, msr_count),
            (Field::EntryMsrLoadArea, entry_area),
            (Field::ExitMsrLoadCount, msr_count),
            (Field::ExitMsrLoadArea, exit_area),
            (Field::LinkPointer, u64::MAX),
            // The guest sees what it wrote; what it may write is checked first.
            (Field::Cr0Mask, u64::MAX),
            (Field::Cr4Mask, u64::MAX),
        ] {
            self.vmcs.write(field, value);
        }
    }

    /// The EPT pointer to tables with this root, or to none.
    pub(super) fn ept_pointer(&self, root: Option<HostPhysAddr>) -> u64 {
        root.map_or(0, |root| ept::pointer(&self.capabilities, root))
    }

    fn set_reset_state(&mut self) {
        self.vmcs.write(Field::GuestPat, PAT_RESET);
        self.vmcs.write(Field::GuestRflags, rflags::FIXED);
        self.set_debug_status_control(dr6::FIXED, dr7::FIXED);
        self.set_control_registers(ControlRegisters { cr0: cr0::ET, ..Default::default() });
    }

    /// Sets bits of the primary controls, or clears them unless they are always set.
    fn control(&mut self, bits: PrimaryControls, wanted: bool) {
        let old = self.vmcs.read(Field::PrimaryControls);
        let always = u64::from(self.capabilities.controls.primary.bits());
        let bits = u64::from(bits.bits());
        let new = if wanted { old | bits } else { old & !bits | always };
        self.vmcs.write(Field::PrimaryControls, new);
    }

    /// The registers to run a guest with that believes in `guest`; `None` if these are the same.
    fn instead_of(&self, guest: ControlRegisters) -> Option<ControlRegisters> {
        match &self.shadow {
            Some(shadow) => Some(shadow.instead_of(guest)),
            None if self.capabilities.needs_identity_map() && guest.cr0 & cr0::PG == 0 => {
                Some(unpaged::on_identity_map(guest))
            }
            None => None,
        }
    }

    /// CR0.PE and the entry controls, on which it depends which segments the CPU accepts.
    fn mode(&self) -> (u64, u64) {
        (self.vmcs.read(Field::Cr0Shadow) & cr0::PE, self.vmcs.read(Field::EntryControls))
    }
}

impl VcpuBackend for VmxVcpu {
    const KEEPS_PAGE_DIRECTORY_POINTERS: bool = true;
    const COUNTS_ACCESSES: bool = true;

    fn load(&mut self) -> bool {
        // SAFETY: the CPU is in VMX operation, and the vCPU, which is borrowed exclusively, is
        // loaded nowhere.
        if !self.shared.is_prepared() || !unsafe { self.vmcs.load() } {
            return false;
        }
        self.host = Some(HostDescriptors::capture(&mut self.vmcs));
        let host_efer = self.vmcs.read(Field::HostEfer);
        if let Some(areas) = &mut self.efer_areas {
            areas.set_host(host_efer);
        }
        // Another CPU, or other tables at the same address, may have been here.
        self.context.host_rsp = 0;
        self.flush_wanted = true;
        let window = self.apic.window().map(|window| window.nested_root);
        for root in [self.nested_root, window].into_iter().flatten() {
            // SAFETY: the CPU is in VMX operation, and has EPT: nothing else walks nested tables.
            unsafe { ept::invalidate(&self.capabilities, self.ept_pointer(Some(root))) };
        }
        self.fpu.load();
        self.breakpoints.load();
        self.debug_status.load();
        self.switched.load();
        self.tsc_aux.load();
        true
    }

    fn put(&mut self) {
        self.tsc_aux.put();
        self.switched.put();
        self.fpu.put();
        self.debug_status.put();
        self.breakpoints.put();
        self.timer.distrust();
        self.vmcs.put();
        if let Some(host) = self.host.take() {
            host.restore();
        }
    }

    #[inline]
    fn can_enter(&self) -> bool {
        let capabilities = &self.capabilities;
        if capabilities.has_unrestricted_guest() {
            return true;
        }
        // What the guest itself does to its segments the CPU can enter again.
        self.enterable.get().unwrap_or_else(|| {
            let protected = self.vmcs.read(Field::Cr0Shadow) & cr0::PE != 0;
            let enterable = protected && entry_check::segments_fit(&self.vmcs, capabilities);
            self.enterable.set(Some(enterable));
            enterable
        })
    }

    fn run(&mut self, gate: &mut EntryGate<'_>) -> Exit {
        self.enter(gate)
    }

    fn gpr(&self, register: Gpr) -> u64 {
        match register {
            Gpr::Rsp => self.vmcs.read(Field::GuestRsp),
            other => self.context.registers[other as usize],
        }
    }

    fn set_gpr(&mut self, register: Gpr, value: u64) {
        match register {
            Gpr::Rsp => self.vmcs.write(Field::GuestRsp, value),
            other => self.context.registers[other as usize] = value,
        }
    }

    fn rip(&self) -> u64 {
        self.vmcs.read(Field::GuestRip)
    }

    fn set_rip(&mut self, value: u64) {
        self.vmcs.write(Field::GuestRip, value);
    }

    fn rflags(&self) -> u64 {
        self.vmcs.read(Field::GuestRflags)
    }

    fn set_rflags(&mut self, value: u64) {
        self.vmcs.write(Field::GuestRflags, value | rflags::FIXED);
        if value & rflags::IF == 0 {
            // No entry is possible with interrupts off in the shadow of an STI.
            self.end_shadow();
        }
    }

    fn segment(&self, register: SegmentRegister) -> Segment {
        let fields = SegmentFields::of(register);
        Segment {
            selector: self.vmcs.read(fields.selector) as u16,
            limit: self.vmcs.read(fields.limit) as u32,
            base: self.vmcs.read(fields.base),
            attributes: segment::from_rights(self.vmcs.read(fields.rights)),
        }
    }

    fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        let fields = SegmentFields::of(register);
        self.vmcs.write(fields.selector, segment.selector.into());
        self.vmcs.write(fields.limit, segment.limit.into());
        self.vmcs.write(fields.base, segment.base);
        self.vmcs.write(fields.rights, segment::to_rights(segment.attributes));
        self.enterable.set(None);
    }

    fn descriptor_tables(&self) -> (DescriptorTable, DescriptorTable) {
        let table = |base, limit| DescriptorTable {
            base: self.vmcs.read(base),
            limit: self.vmcs.read(limit) as u16,
        };
        (table(Field::GdtrBase, Field::GdtrLimit), table(Field::IdtrBase, Field::IdtrLimit))
    }

    fn set_descriptor_tables(&mut self, gdtr: DescriptorTable, idtr: DescriptorTable) {
        self.vmcs.write(Field::GdtrBase, gdtr.base);
        self.vmcs.write(Field::GdtrLimit, gdtr.limit.into());
        self.vmcs.write(Field::IdtrBase, idtr.base);
        self.vmcs.write(Field::IdtrLimit, idtr.limit.into());
    }

    fn control_registers(&self) -> ControlRegisters {
        let (cr3, efer) = self
            .hidden
            .unwrap_or_else(|| (self.vmcs.read(Field::GuestCr3), self.vmcs.read(Field::GuestEfer)));
        ControlRegisters {
            cr0: self.vmcs.read(Field::Cr0Shadow),
            cr2: self.context.cr2,
            cr3,
            cr4: self.vmcs.read(Field::Cr4Shadow),
            efer,
        }
    }

    fn is_64_bit_code(&self) -> bool {
        let rights = segment::from_rights(self.vmcs.read(Field::CsRights));
        self.vmcs.read(Field::GuestEfer) & efer::LMA != 0 && rights.long()
    }

    fn set_control_registers(&mut self, value: ControlRegisters) {
        let instead = self.instead_of(value);
        self.hidden = instead.map(|_| (value.cr3, value.efer));
        if self.capabilities.needs_identity_map() {
            let cr3_exiting =
                PrimaryControls::CR3_LOAD_EXITING | PrimaryControls::CR3_STORE_EXITING;
            self.control(cr3_exiting, instead.is_some());
        }
        let real = instead.unwrap_or(value);
        let capabilities = &self.capabilities;
        let (real_cr0, real_cr4) =
            (capabilities.real_cr0(real.cr0), capabilities.real_cr4(real.cr4));
        let long_mode = u64::from(EntryControls::IA32E_MODE_GUEST.bits());
        let entry = self.vmcs.read(Field::EntryControls) & !long_mode;
        let is_long = real.efer & efer::LMA != 0;
        let mode = self.mode();
        for (field, value) in [
            (Field::GuestCr0, real_cr0),
            (Field::Cr0Shadow, value.cr0 | cr0::ET),
            (Field::GuestCr4, real_cr4),
            (Field::Cr4Shadow, value.cr4),
            (Field::GuestCr3, real.cr3),
            (Field::GuestEfer, real.efer),
            (Field::EntryControls, if is_long { entry | long_mode } else { entry }),
        ] {
            self.vmcs.write(field, value);
        }
        if let Some(areas) = &mut self.efer_areas {
            areas.set_guest(real.efer);
        }
        self.context.cr2 = value.cr2;
        // Of shadow tables it is known when translations go.
        self.flush_wanted |= self.shadow.is_none();
        if self.mode() != mode {
            self.enterable.set(None);
        }
    }

    fn set_page_directory_pointers(&mut self, entries: [u64; 4]) {
        if let Some(shadow) = &mut self.shadow {
            shadow.pointers = entries;
            return;
        }
        for (field, entry) in PAGE_DIRECTORY_POINTERS.into_iter().zip(entries) {
            self.vmcs.write(field, entry);
        }
    }

    fn page_directory_pointers(&self) -> Option<[u64; 4]> {
        Some(match &self.shadow {
            Some(shadow) => shadow.pointers,
            None => PAGE_DIRECTORY_POINTERS.map(|field| self.vmcs.read(field)),
        })
    }

    fn set_shadow_root(&mut self, root: HostPhysAddr) {
        if let Some(shadow) = &mut self.shadow
            && shadow.root != root
        {
            shadow.root = root;
            self.vmcs.write(Field::GuestCr3, root.as_u64());
            self.flush_wanted = true;
        }
    }

    fn cr4(&self) -> u64 {
        self.vmcs.read(Field::Cr4Shadow)
    }

    fn cpl(&self) -> u8 {
        segment::from_rights(self.vmcs.read(Field::SsRights)).dpl()
    }

    fn debug_status_control(&self) -> (u64, u64) {
        (self.debug_status.get(), self.vmcs.read(Field::GuestDr7))
    }

    fn set_debug_status_control(&mut self, dr6: u64, dr7: u64) {
        self.debug_status.set(dr6);
        self.vmcs.write(Field::GuestDr7, dr7);
    }

    fn msr(&self, msr: HardwareMsr) -> u64 {
        match msr {
            HardwareMsr::Star => self.switched.get(IA32_STAR),
            HardwareMsr::Lstar => self.switched.get(IA32_LSTAR),
            HardwareMsr::Cstar => self.switched.get(IA32_CSTAR),
            HardwareMsr::Sfmask => self.switched.get(IA32_FMASK),
            HardwareMsr::KernelGsBase => self.switched.get(IA32_KERNEL_GSBASE),
            HardwareMsr::SysenterCs => self.vmcs.read(Field::SysenterCs),
            HardwareMsr::SysenterEsp => self.vmcs.read(Field::SysenterEsp),
            HardwareMsr::SysenterEip => self.vmcs.read(Field::SysenterEip),
            HardwareMsr::Pat => self.vmcs.read(Field::GuestPat),
            HardwareMsr::DebugCtl => self.vmcs.read(Field::GuestDebugCtl),
        }
    }

    fn set_msr(&mut self, msr: HardwareMsr, value: u64) {
        match msr {
            HardwareMsr::Star => self.switched.set(IA32_STAR, value),
            HardwareMsr::Lstar => self.switched.set(IA32_LSTAR, value),
            HardwareMsr::Cstar => self.switched.set(IA32_CSTAR, value),
            HardwareMsr::Sfmask => self.switched.set(IA32_FMASK, value),
            HardwareMsr::KernelGsBase => self.switched.set(IA32_KERNEL_GSBASE, value),
            HardwareMsr::SysenterCs => self.vmcs.write(Field::SysenterCs, value),
            HardwareMsr::SysenterEsp => self.vmcs.write(Field::SysenterEsp, value),
            HardwareMsr::SysenterEip => self.vmcs.write(Field::SysenterEip, value),
            HardwareMsr::Pat => self.vmcs.write(Field::GuestPat, value),
            HardwareMsr::DebugCtl => self.vmcs.write(Field::GuestDebugCtl, value),
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
        self.vmcs.read(Field::TscOffset)
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcs.write(Field::TscOffset, offset);
    }

    fn task_priority(&self) -> u8 {
        self.apic.task_priority()
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.apic.set_task_priority(priority);
    }

    fn set_apic_mode(&mut self, mode: ApicMode, delivers: bool) -> ApicRole {
        self.choose_apic(mode, delivers)
    }

    fn load_interrupts(&mut self, state: &InterruptState) {
        self.give_interrupts(state);
    }

    fn interrupts(&self) -> InterruptState {
        self.apic.page.as_ref().map(|page| *page.interrupts()).unwrap_or_default()
    }

    fn apic_register(&self, offset: u16) -> u32 {
        self.apic.page.as_ref().map_or(0, |page| page.register(offset))
    }

    fn set_apic_register(&mut self, offset: u16, value: u32) {
        if let Some(page) = &mut self.apic.page {
            page.set_register(offset, value);
        }
    }

    fn interruptibility(&self) -> Interruptibility {
        let state = self.vmcs.read(Field::Interruptibility);
        Interruptibility {
            interrupts_enabled: self.rflags() & rflags::IF != 0,
            in_shadow: state & SHADOW != 0 && !self.shadow_ended,
            nmi_blocked: self.blocks_nmis(),
        }
    }

    fn clear_interrupt_shadow(&mut self) {
        self.note_end_of_shadow();
    }

    fn begin_interrupt_shadow(&mut self, shadow: InterruptShadow) {
        self.begin_shadow(shadow);
    }

    fn inject(&mut self, event: Event) {
        self.injected = Some(event);
        // Delivery ends an interrupt shadow. The CPU refuses some events inside one.
        self.end_shadow();
        let injection = decode::injection(event);
        self.vmcs.write(Field::EntryEvent, injection.field.into());
        if let Some(code) = injection.error_code {
            self.vmcs.write(Field::EntryErrorCode, code.into());
        }
        if let Some(length) = injection.instruction_length {
            self.vmcs.write(Field::EntryInstructionLength, length.into());
        }
        if let Event::Exception(exception) = event {
            self.keep_nmi_unblocking();
            if let Some(address) = exception.fault_address {
                self.context.cr2 = address;
            }
        }
    }

    fn has_interrupted_event(&self) -> bool {
        self.interrupted.is_some()
    }

    fn take_interrupted_event(&mut self) -> Option<Event> {
        self.interrupted.take()
    }

    fn set_nmi_blocking(&mut self, blocked: bool) {
        self.block_nmis(blocked);
    }

    fn drop_pending_debug_exceptions(&mut self) {
        self.vmcs.write(Field::PendingDebug, 0);
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        self.control(PrimaryControls::INTERRUPT_WINDOW_EXITING, wanted);
    }

    fn request_nmi_window(&mut self, wanted: bool) {
        if self.capabilities.has_virtual_nmis() {
            self.control(PrimaryControls::NMI_WINDOW_EXITING, wanted);
        } else if wanted {
            // Asked for behind the window for interrupts: the handler of an NMI is over when
            // interrupts are taken again.
            self.control(PrimaryControls::INTERRUPT_WINDOW_EXITING, true);
        }
    }

    fn watch_task_priority(&mut self, class: Option<u8>) {
        // Without a shadow all writes exit, always.
        self.set_threshold(class);
    }

    fn ends_at_deadline(&self) -> bool {
        self.capabilities.controls.preemption_timer
    }

    fn next_rip(&self) -> Option<u64> {
        let rip = self.rip();
        let next = rip.wrapping_add(self.instruction_length().into());
        // Outside 64-bit code RIP has 32 bits. What lies beyond them is 64-bit code.
        let wraps = next >> 32 != 0 && rip >> 32 == 0 && !self.is_64_bit_code();
        Some(if wraps { next & 0xFFFF_FFFF } else { next })
    }

    fn instruction_bytes(&self) -> Option<&[u8]> {
        None
    }

    fn control_bytes(&self) -> usize {
        let efer_areas = self.efer_areas.as_ref().map_or(0, EferAreas::bytes);
        self.vmcs.bytes() + self.apic.bytes() + efer_areas + self.fpu.bytes()
    }

    fn control_accesses(&self) -> u64 {
        self.accesses_at_entry
    }

    fn flush_tlb(&mut self) {
        self.flush_wanted = true;
    }

    #[cfg(feature = "fault-injection")]
    fn spoil_entry(&mut self, fault: &str) -> bool {
        self.spoil(fault)
    }
}
