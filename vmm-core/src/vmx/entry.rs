// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into the guest and back.

use core::arch::asm;

use super::{
    decode::{self, EventField, ExitInformation, ExitReasonField, event_kind, reason},
    entry_check, entry_failure,
    field::Field,
    switch::{self, Outcome},
    vcpu::VmxVcpu,
};
use crate::{
    Event, Exit,
    backend::{EntryGate, VcpuBackend},
    cpu_interrupts,
    state::{Exception, SegmentRegister, dr6, dr7},
};

/// Bits of a debug exception's exit qualification that DR6 has in the same place: B0 to B3,
/// BD and BS (Intel SDM vol. 3, table 27-1).
const DEBUG_CAUSES: u64 = dr6::BREAKPOINTS | dr6::GENERAL_DETECT | dr6::SINGLE_STEP;

impl VmxVcpu {
    /// Enters the guest if the gate opens, and returns its exit.
    pub(super) fn enter(&mut self, gate: &mut EntryGate<'_>) -> Exit {
        self.flush_if_wanted();
        self.vmcs.write_back();
        cpu_interrupts::disable();
        if !gate.opens() {
            cpu_interrupts::enable();
            self.timer.stand_still(gate);
            self.interrupted = self.injected.take();
            self.vmcs.write(Field::EntryEvent, 0);
            return Exit::NotEntered;
        }
        if self.capabilities.controls.preemption_timer {
            // Only now is it known how much time is left.
            self.timer.prepare(&mut self.vmcs, gate);
            self.vmcs.write_back();
        }
        let resume = self.vmcs.is_launched();
        // SAFETY: interrupts are disabled. The vCPU is loaded on this CPU: its VMCS is current
        // or there is none, its host fields were filled here, and it is launched if it says
        // so. The controls are those of `set_controls`, the guest state was checked by those
        // who set it, and the nested tables map the VM's own memory only.
        let outcome = unsafe { switch::enter(&mut self.context, resume) };
        self.accesses_at_entry = self.vmcs.accesses() + self.context.accesses;
        let injected = self.injected.take();
        if injected == Some(Event::Nmi) && !self.capabilities.has_virtual_nmis() {
            self.handles_nmi = true;
        }
        self.shadow_ended = false;
        match outcome {
            Outcome::Exited => {
                let exit = self.take_exit();
                if matches!(exit, Exit::NotEntered) {
                    self.interrupted = injected;
                    self.vmcs.write(Field::EntryEvent, 0);
                }
                exit
            }
            Outcome::Refused => {
                cpu_interrupts::enable();
                self.vmcs.entry_failed();
                let error = self.vmcs.read(Field::InstructionError);
                Exit::EntryFailure(entry_failure::instruction_error(error))
            }
            Outcome::NoVmcs => {
                cpu_interrupts::enable();
                Exit::EntryFailure("the CPU did not accept the VMCS")
            }
        }
    }

    /// The exit as the neutral layer sees it, after the backend's own part. Called with
    /// interrupts disabled; a physical interrupt that caused the exit is taken here.
    fn take_exit(&mut self) -> Exit {
        self.vmcs.guest_exited();
        self.note_interrupts();
        let field = ExitReasonField::from_bits(self.vmcs.read(Field::ExitReason) as u32);
        self.basic_reason = field.basic();
        if field.basic() == reason::EXCEPTION_OR_NMI && self.event().kind() == event_kind::NMI {
            // The exit has blocked NMIs on this CPU until an IRET, which the host's handler
            // ends with.
            // SAFETY: the host has a handler for NMIs; to it this is one.
            unsafe { asm!("int 2") }
        }
        cpu_interrupts::enable();
        self.exit_of(field)
    }

    pub(super) fn exit_of(&mut self, field: ExitReasonField) -> Exit {
        if field.entry_failure() {
            self.vmcs.entry_failed();
            let is_state = self.basic_reason == reason::INVALID_GUEST_STATE;
            if is_state && self.complete_data_segments() {
                return Exit::NotEntered;
            }
            return Exit::EntryFailure(self.entry_failure());
        }
        self.iret_interrupted = false;
        if self.basic_reason == reason::PREEMPTION_TIMER {
            self.timer.distrust();
        }
        if decode::may_interrupt_delivery(self.basic_reason) {
            let event = self.vectoring_event();
            let error_code = if event.has_error_code() { self.vectoring_error_code() } else { 0 };
            self.interrupted = decode::interrupted_event(event, error_code, self.context.cr2);
            self.correct_nmi_blocking();
        }
        self.look_for_end_of_nmi();
        match decode::exit(self.basic_reason, self) {
            exit @ Exit::Exception(Exception { vector, .. })
                if vector == Exception::DEBUG.vector =>
            {
                self.note_debug_exception();
                exit
            }
            exit => exit,
        }
    }

    /// An intercepted #DB leaves the debug registers to the VMM (Intel SDM vol. 3, 27.1).
    fn note_debug_exception(&mut self) {
        use crate::backend::VcpuBackend;

        if self.event().kind() == event_kind::PRIVILEGED_SOFTWARE_EXCEPTION
            && let Some(next) = self.next_rip()
        {
            // INT1 is a trap: its handler returns behind it.
            self.set_rip(next);
        }
        let causes = self.qualification() & DEBUG_CAUSES;
        let (status, control) = self.debug_status_control();
        self.set_debug_status_control(
            status & !dr6::BREAKPOINTS | causes,
            control & !dr7::GENERAL_DETECT,
        );
    }

    /// Which check the guest's state failed.
    fn entry_failure(&self) -> &'static str {
        match self.basic_reason {
            reason::INVALID_GUEST_STATE => {
                self.log_segments();
                entry_failure::guest_state_qualification(self.qualification())
                    .unwrap_or_else(|| entry_check::first_failure(&self.vmcs, &self.capabilities))
            }
            reason::MSR_LOADING => "loading of MSRs (SDM vol. 3, 26.4)",
            reason::MACHINE_CHECK_AT_ENTRY => "a machine check (SDM vol. 3, 26.9)",
            _ => "a reason that the manual does not list",
        }
    }

    /// Writes what the entry was refused with to the log, once for a VM: most checks are on it.
    fn log_segments(&self) {
        for register in [
            SegmentRegister::Cs,
            SegmentRegister::Ss,
            SegmentRegister::Ds,
            SegmentRegister::Es,
            SegmentRegister::Fs,
            SegmentRegister::Gs,
            SegmentRegister::Ldtr,
            SegmentRegister::Tr,
        ] {
            log::warn!("entry refused with {register:?} {:x?}", self.segment(register));
        }
    }

    /// Drops the guest's cached translations on this CPU. Without a VPID, every entry does.
    fn flush_if_wanted(&mut self) {
        if core::mem::take(&mut self.flush_wanted)
            && let Some(vpid) = &self.vpid
        {
            // SAFETY: the vCPU is loaded, so the CPU is in VMX operation.
            unsafe { vpid.invalidate(&self.capabilities) };
        }
    }

    /// Length of the instruction that exited.
    pub(super) fn instruction_length(&self) -> u8 {
        let known = match self.basic_reason {
            reason::CPUID => self.lengths.get(self.vmcs.read(Field::GuestRip)),
            _ => None,
        };
        known.unwrap_or_else(|| {
            let length = self.vmcs.read(Field::InstructionLength) as u8;
            if self.basic_reason == reason::CPUID {
                self.lengths.note(self.vmcs.read(Field::GuestRip), length);
            }
            length
        })
    }
}

impl ExitInformation for VmxVcpu {
    fn qualification(&self) -> u64 {
        self.vmcs.read(Field::ExitQualification)
    }

    fn guest_physical_address(&self) -> u64 {
        self.vmcs.read(Field::GuestPhysicalAddress)
    }

    fn event(&self) -> EventField {
        EventField::from_bits(self.vmcs.read(Field::ExitEvent) as u32)
    }

    fn error_code(&self) -> u32 {
        self.vmcs.read(Field::ExitErrorCode) as u32
    }

    fn vectoring_event(&self) -> EventField {
        EventField::from_bits(self.vmcs.read(Field::VectoringEvent) as u32)
    }

    fn vectoring_error_code(&self) -> u32 {
        self.vmcs.read(Field::VectoringErrorCode) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Event, Trapped,
        apic::{ApicMode, InterruptState},
        backend::{ApicRole, ApicSetup, ApicWindow, Translation, VcpuBackend, VcpuSetup},
        state::{Gpr, SegmentRegister, Vector, rflags},
        vmx::{
            CapabilityMsrs,
            capability::samples::{TIGER_LAKE, without},
            cpu::Shared,
            field::SegmentFields,
            instruction,
            interruptibility::BLOCKED_BY_NMI,
        },
    };
    use host_iface::HostPhysAddr;

    /// A vCPU whose VMCS is current, after its first entry.
    fn entered() -> VmxVcpu {
        entered_on(TIGER_LAKE)
    }

    /// The same on a CPU that offers `msrs`.
    fn entered_on(msrs: CapabilityMsrs) -> VmxVcpu {
        entered_among(msrs, false)
    }

    /// The same, of a VM in which it may spin.
    fn entered_among(msrs: CapabilityMsrs, has_siblings: bool) -> VmxVcpu {
        let window =
            ApicWindow { nested_root: HostPhysAddr::new(0x2000), page: HostPhysAddr::new(0x3000) };
        let setup = VcpuSetup {
            translation: Translation::Nested(HostPhysAddr::new(0x1000)),
            tsc_offset: 0,
            apic: ApicSetup::Hardware { window: Some(window) },
            has_siblings,
        };
        let mut vcpu = VmxVcpu::new(Shared::sample(msrs), setup).unwrap();
        // SAFETY: in tests the VMX instructions work on ordinary memory.
        assert!(unsafe { vcpu.vmcs.load() });
        vcpu.vmcs.write_back();
        vcpu
    }

    fn set_hardware(field: Field, value: u64) {
        // SAFETY: as above.
        unsafe { instruction::vmwrite(field.encoding(), value) };
    }

    fn exit(vcpu: &mut VmxVcpu, fields: &[(Field, u64)]) -> Exit {
        for (field, value) in fields {
            set_hardware(*field, *value);
        }
        vcpu.vmcs.guest_exited();
        vcpu.note_interrupts();
        let field = ExitReasonField::from_bits(vcpu.vmcs.read(Field::ExitReason) as u32);
        vcpu.basic_reason = field.basic();
        vcpu.exit_of(field)
    }

    /// What the neutral layer asks of a backend from a CPUID exit to the next entry.
    fn answer_cpuid(vcpu: &mut VmxVcpu) {
        assert_eq!(vcpu.take_interrupted_event(), None);
        vcpu.task_priority();
        vcpu.interrupts();
        vcpu.cr4();
        for register in [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx] {
            vcpu.set_gpr(register, 0);
        }
        let next = vcpu.next_rip().unwrap();
        vcpu.set_rip(next);
        assert_eq!(vcpu.rflags() & rflags::TF, 0);
        vcpu.clear_interrupt_shadow();
        let role = vcpu.set_apic_mode(ApicMode::X2Apic, true);
        vcpu.set_task_priority(0);
        if role.delivers {
            let state = vcpu.interrupts();
            vcpu.load_interrupts(&state);
        }
        vcpu.request_interrupt_window(false);
        vcpu.watch_task_priority(None);
        vcpu.request_nmi_window(false);
        vcpu.vmcs.write_back();
    }

    /// What the fields hold that the next entry takes.
    fn hardware(vcpu: &mut VmxVcpu, field: Field) -> u64 {
        vcpu.vmcs.write_back();
        // SAFETY: as above.
        unsafe { instruction::vmread(field.encoding()) }.unwrap_or(0)
    }

    #[test]
    fn a_cpuid_exit_costs_four_accesses() {
        for msrs in [TIGER_LAKE, PLAIN] {
            cpuid_exits(entered_on(msrs));
        }
    }

    fn cpuid_exits(mut vcpu: VmxVcpu) {
        vcpu.set_apic_mode(ApicMode::X2Apic, true);
        vcpu.vmcs.write_back();
        let fields = [
            (Field::ExitReason, u64::from(reason::CPUID)),
            (Field::InstructionLength, 2),
            (Field::GuestRip, 0x10_0000),
            (Field::GuestRflags, rflags::FIXED),
        ];
        let mut costs = alloc::vec::Vec::new();
        for _ in 0..3 {
            let before = vcpu.vmcs.accesses();
            assert_eq!(exit(&mut vcpu, &fields), Exit::Cpuid);
            answer_cpuid(&mut vcpu);
            assert_eq!(vcpu.rip(), 0x10_0002);
            costs.push(vcpu.vmcs.accesses() - before);
        }
        assert_eq!(costs, [5, 4, 4], "the first tells the length of the instruction");
    }

    /// A CPU whose APIC virtualization ends with the TPR shadow.
    const PLAIN: CapabilityMsrs = CapabilityMsrs {
        secondary: without(TIGER_LAKE.secondary, 1 | 1 << 4 | 1 << 8 | 1 << 9),
        ..TIGER_LAKE
    };

    #[test]
    fn the_mode_of_the_local_apic_chooses_what_is_virtualized() {
        const XAPIC: u64 = 1;
        const X2APIC: u64 = 1 << 4;
        const DELIVERY: u64 = 1 << 8 | 1 << 9;
        let both = ApicRole { delivers: true, shows_registers: true };
        let delivers = ApicRole { delivers: true, shows_registers: false };
        let none = ApicRole::default();
        let mut vcpu = entered();
        for (mode, enabled, role, controls, root) in [
            (ApicMode::XApic, false, none, XAPIC, 0x2000),
            (ApicMode::XApic, true, both, XAPIC | DELIVERY, 0x2000),
            (ApicMode::X2Apic, true, delivers, X2APIC | DELIVERY, 0x1000),
            (ApicMode::X2Apic, false, none, X2APIC, 0x1000),
            (ApicMode::Disabled, false, none, 0, 0x1000),
        ] {
            assert_eq!(vcpu.set_apic_mode(mode, enabled), role, "{mode:?} {enabled}");
            let word = hardware(&mut vcpu, Field::SecondaryControls);
            assert_eq!(word & (XAPIC | X2APIC | DELIVERY), controls, "{mode:?} {enabled}");
            assert_eq!(hardware(&mut vcpu, Field::EptPointer) & !0xFFF, root);
        }
        assert_eq!(hardware(&mut vcpu, Field::ApicAccessPage), 0x3000);
        let mut plain = entered_on(PLAIN);
        for mode in [ApicMode::XApic, ApicMode::X2Apic] {
            assert_eq!(plain.set_apic_mode(mode, true), none);
        }
    }

    #[test]
    fn interrupts_are_the_cpus_while_it_delivers_them() {
        let mut vcpu = entered();
        vcpu.set_apic_mode(ApicMode::X2Apic, true);
        let mut state = InterruptState::default();
        state.requested.insert(Vector(0x31));
        state.requested.insert(Vector(0x52));
        state.level_triggered.insert(Vector(0x52));
        vcpu.load_interrupts(&state);
        assert_eq!(hardware(&mut vcpu, Field::InterruptStatus), 0x52);
        assert_eq!(hardware(&mut vcpu, Field::EoiExit1), 1 << (0x52 - 64));
        // It delivers the higher one, whose handler exits.
        let page = vcpu.apic.page.as_mut().unwrap();
        page.set_register(0x220, 0);
        page.set_register(0x120, 1 << (0x52 - 0x40));
        set_hardware(Field::InterruptStatus, 0x5231);
        let before = vcpu.vmcs.accesses();
        exit(&mut vcpu, &[(Field::ExitReason, u64::from(reason::CPUID))]);
        let after = vcpu.interrupts();
        assert_eq!(after.in_service.highest(), Some(Vector(0x52)));
        assert_eq!(after.requested.highest(), Some(Vector(0x31)));
        vcpu.load_interrupts(&after);
        vcpu.vmcs.write_back();
        assert_eq!(vcpu.vmcs.accesses(), before + 1, "the reason of the exit alone");
        // The VMM ends it: the CPU is told.
        vcpu.load_interrupts(&InterruptState { in_service: Default::default(), ..after });
        assert_eq!(hardware(&mut vcpu, Field::InterruptStatus), 0x31);
    }

    #[test]
    fn the_threshold_is_set_only_for_what_the_task_priority_holds_back() {
        let mut vcpu = entered_on(PLAIN);
        for (priority, class, threshold) in
            [(0x50, Some(5), 5), (0x60, Some(5), 5), (0x4F, Some(5), 0), (0x60, None, 0)]
        {
            vcpu.set_task_priority(priority);
            vcpu.watch_task_priority(class);
            assert_eq!(hardware(&mut vcpu, Field::TprThreshold), threshold, "{priority:#x}");
        }
    }

    #[test]
    fn spinning_is_limited_where_there_is_another_to_wait_for() {
        const PAUSE_LOOP: u64 = 1 << 10;
        let unable =
            CapabilityMsrs { secondary: without(TIGER_LAKE.secondary, 1 << 10), ..TIGER_LAKE };
        for (msrs, limits, control, window) in [
            (TIGER_LAKE, true, PAUSE_LOOP, 1 << 20),
            (TIGER_LAKE, false, 0, 0),
            (unable, true, 0, 0),
        ] {
            let mut vcpu = entered_among(msrs, limits);
            let word = hardware(&mut vcpu, Field::SecondaryControls);
            assert_eq!(word & PAUSE_LOOP, control);
            assert_eq!(hardware(&mut vcpu, Field::PauseLoopWindow), window);
            // The mode of the local APIC, which has controls in the same word, changes nothing.
            vcpu.set_apic_mode(ApicMode::X2Apic, true);
            let word = hardware(&mut vcpu, Field::SecondaryControls);
            assert_eq!(word & PAUSE_LOOP, control);
        }
    }

    #[test]
    fn an_nmi_whose_delivery_was_cut_short_blocks_no_other() {
        let mut vcpu = entered();
        let fields = [
            (Field::ExitReason, u64::from(reason::EPT_VIOLATION)),
            (Field::VectoringEvent, 0x8000_0202),
            (Field::Interruptibility, BLOCKED_BY_NMI),
        ];
        exit(&mut vcpu, &fields);
        assert_eq!(vcpu.take_interrupted_event(), Some(Event::Nmi));
        assert!(!vcpu.interruptibility().nmi_blocked);
    }

    #[test]
    fn an_iret_that_is_repeated_unblocks_no_nmis() {
        let mut vcpu = entered();
        let fields = [
            (Field::ExitReason, u64::from(reason::EPT_VIOLATION)),
            (Field::ExitQualification, 1 << 12 | 1),
            (Field::VectoringEvent, 0),
            (Field::Interruptibility, 0),
        ];
        exit(&mut vcpu, &fields);
        assert!(vcpu.interruptibility().nmi_blocked);
    }

    #[test]
    fn an_iret_that_faults_in_the_guest_unblocks_nmis() {
        let mut vcpu = entered();
        let fields = [
            (Field::ExitReason, u64::from(reason::EXCEPTION_OR_NMI)),
            (Field::ExitEvent, 0x8000_1B0E),
            (Field::ExitErrorCode, 4),
            (Field::ExitQualification, 0x5000),
            (Field::VectoringEvent, 0),
            (Field::Interruptibility, 0),
        ];
        let fault = Exit::PageFault { address: 0x5000, error_code: 4 };
        assert_eq!(exit(&mut vcpu, &fields), fault);
        assert!(vcpu.interruptibility().nmi_blocked, "as far as it is repeated");
        vcpu.inject(Event::Exception(Exception::page_fault(0x5000, 4)));
        assert!(!vcpu.interruptibility().nmi_blocked);
    }

    #[test]
    fn an_event_ends_the_shadow_that_it_is_delivered_in() {
        let mut vcpu = entered();
        let fields = [
            (Field::ExitReason, u64::from(reason::VMXON)),
            (Field::Interruptibility, 1),
            (Field::GuestRflags, rflags::FIXED | rflags::IF),
        ];
        let refused = Exit::Instruction(Trapped::Virtualization);
        assert_eq!(exit(&mut vcpu, &fields), refused);
        assert!(vcpu.interruptibility().in_shadow);
        vcpu.inject(Event::Interrupt(Vector(0x30)));
        vcpu.vmcs.write_back();
        // SAFETY: as above.
        let state = unsafe { instruction::vmread(Field::Interruptibility.encoding()) };
        assert_eq!(state, Some(0));
    }

    #[test]
    fn a_shadow_that_has_ended_keeps_no_interrupt_back_that_the_cpu_delivers() {
        let mut vcpu = entered();
        vcpu.set_apic_mode(ApicMode::X2Apic, true);
        let fields = [
            (Field::ExitReason, u64::from(reason::HLT)),
            (Field::Interruptibility, 1),
            (Field::GuestRflags, rflags::FIXED | rflags::IF),
        ];
        assert_eq!(exit(&mut vcpu, &fields), Exit::Halt);
        vcpu.clear_interrupt_shadow();
        vcpu.load_interrupts(&InterruptState::default());
        assert_eq!(hardware(&mut vcpu, Field::Interruptibility), 1, "nothing waits");
        let mut state = InterruptState::default();
        state.requested.insert(Vector(0x40));
        vcpu.load_interrupts(&state);
        assert_eq!(hardware(&mut vcpu, Field::Interruptibility), 0);
    }

    /// A guest in 64-bit mode that the CPU enters, with these flags beside the fixed one.
    fn sound_state(flags: u64) -> [(Field, u64); 16] {
        use crate::state::{cr0, cr4, efer};

        let capabilities = Shared::sample(TIGER_LAKE).capabilities;
        let segment = |register, rights| (SegmentFields::of(register).rights, rights);
        [
            (Field::ExitReason, u64::from(reason::EPT_VIOLATION)),
            (Field::GuestCr0, capabilities.real_cr0(cr0::PE | cr0::PG | cr0::ET)),
            (Field::GuestCr4, capabilities.real_cr4(cr4::PAE)),
            (Field::GuestEfer, efer::LME | efer::LMA),
            (Field::EntryControls, 1 << 9),
            (Field::GuestDr7, dr7::FIXED),
            (Field::GuestRflags, rflags::FIXED | rflags::IF | flags),
            (Field::LdtrRights, 1 << 16),
            (Field::TrRights, 0x8B),
            (Field::TrLimit, 0x67),
            segment(SegmentRegister::Cs, 0x209B),
            segment(SegmentRegister::Ss, 0x93),
            segment(SegmentRegister::Ds, 0x93),
            segment(SegmentRegister::Es, 0x93),
            segment(SegmentRegister::Fs, 0x93),
            segment(SegmentRegister::Gs, 0x93),
        ]
    }

    /// Nothing that the VMM itself checks keeps the guest from being entered.
    fn assert_enterable(vcpu: &VmxVcpu) {
        let found = entry_check::first_failure(&vcpu.vmcs, &vcpu.capabilities);
        assert!(found.contains("does not know"), "{found}");
    }

    /// Bug class odd-entry: MOV SS and STI that the VMM completes in a guest that single-steps
    /// leave a state without which the CPU refuses the entry.
    #[test]
    fn a_shadow_in_a_guest_that_single_steps_holds_the_step_back() {
        use crate::state::InterruptShadow;

        for shadow in [InterruptShadow::MovSs, InterruptShadow::Sti] {
            for flags in [0, rflags::TF] {
                let mut vcpu = entered();
                exit(&mut vcpu, &sound_state(flags));
                assert_enterable(&vcpu);
                vcpu.begin_interrupt_shadow(shadow);
                assert_enterable(&vcpu);
                let step = if flags == 0 { 0 } else { dr6::SINGLE_STEP };
                assert_eq!(hardware(&mut vcpu, Field::PendingDebug), step);
                // The next instruction is completed by the VMM, too, and its step raised.
                vcpu.clear_interrupt_shadow();
                assert_enterable(&vcpu);
                vcpu.inject(Event::Exception(Exception::DEBUG));
                assert_enterable(&vcpu);
                assert_eq!(hardware(&mut vcpu, Field::PendingDebug), 0);
            }
        }
    }

    /// Bug class odd-entry: a POPF in the shadow of an STI begins single-stepping.
    #[test]
    fn single_steps_that_begin_in_a_shadow_end_it() {
        let mut vcpu = entered();
        exit(&mut vcpu, &sound_state(0));
        exit(&mut vcpu, &[(Field::Interruptibility, 1)]);
        vcpu.set_rflags(rflags::FIXED | rflags::IF | rflags::TF);
        vcpu.clear_interrupt_shadow();
        assert_enterable(&vcpu);
        assert_eq!(hardware(&mut vcpu, Field::Interruptibility), 0);
    }

    #[test]
    fn a_refused_entry_names_the_check() {
        let mut vcpu = entered();
        let fields = [
            (Field::ExitReason, 1 << 31 | u64::from(reason::INVALID_GUEST_STATE)),
            (Field::ExitQualification, 0),
            (Field::GuestRflags, 0),
            (Field::CsRights, 0x9B),
            (Field::SsRights, 0x93),
            (Field::DsRights, 0x93),
            (Field::EsRights, 0x93),
            (Field::FsRights, 0x93),
            (Field::GsRights, 0x93),
            (Field::TrRights, 0x8B),
            (Field::LdtrRights, 0x82),
        ];
        let Exit::EntryFailure(why) = exit(&mut vcpu, &fields) else { panic!("no entry") };
        assert!(why.contains("RFLAGS"), "{why}");
    }

    #[test]
    fn real_mode_enters_with_a_segment_that_was_null() {
        use crate::state::{ControlRegisters, cr0};

        let refused = (Field::ExitReason, 1 << 31 | u64::from(reason::INVALID_GUEST_STATE));
        // Usable, and of the type that a null descriptor has.
        let fields = [refused, (Field::ExitQualification, 0), (Field::DsRights, 0x90)];
        let mut vcpu = entered();
        assert_eq!(exit(&mut vcpu, &fields), Exit::NotEntered);
        assert_eq!(hardware(&mut vcpu, Field::DsRights), 0x93);
        // There is nothing left to complete.
        assert!(matches!(exit(&mut vcpu, &fields[..2]), Exit::EntryFailure(_)));
        // Protected mode has no such segments.
        let mut vcpu = entered();
        let control = vcpu.control_registers();
        vcpu.set_control_registers(ControlRegisters { cr0: control.cr0 | cr0::PE, ..control });
        assert!(matches!(exit(&mut vcpu, &fields), Exit::EntryFailure(_)));
    }
}
