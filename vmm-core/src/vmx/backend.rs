// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the vendor-neutral layer asks of a vCPU.

use host_iface::HostPhysAddr;

use super::{
    field::{Field, SegmentFields},
    msr_area::EferAreas,
    segment,
    vcpu::VmxVcpu,
};
use crate::{
    Event, Exit,
    apic::{ApicMode, InterruptState},
    backend::{ApicRole, EntryGate, HardwareMsr, Interruptibility, VcpuBackend},
    state::{
        ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentRegister, rflags,
    },
};

impl VcpuBackend for VmxVcpu {
    const KEEPS_PAGE_DIRECTORY_POINTERS: bool = true;
    const COUNTS_ACCESSES: bool = true;

    fn load(&mut self) -> bool {
        self.move_in()
    }

    fn put(&mut self) {
        self.move_out();
    }

    #[inline]
    fn can_enter(&self) -> bool {
        self.fits_the_cpu()
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
        let steps_change = (value ^ self.rflags()) & rflags::TF != 0;
        if steps_change || value & rflags::IF == 0 {
            // No entry is possible with interrupts off in the shadow of an STI, nor in any with a
            // single step held back that the flags do not ask for, or the other way round. It ends
            // while they still tell whether one is.
            self.end_shadow();
        }
        self.vmcs.write(Field::GuestRflags, value | rflags::FIXED);
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
        self.believed_registers()
    }

    fn is_64_bit_code(&self) -> bool {
        self.is_in_64_bit_code()
    }

    fn set_control_registers(&mut self, value: ControlRegisters) {
        self.set_believed_registers(value);
    }

    fn set_page_directory_pointers(&mut self, entries: [u64; 4]) {
        self.keep_pointers(entries);
    }

    fn page_directory_pointers(&self) -> Option<[u64; 4]> {
        Some(self.kept_pointers())
    }

    fn set_shadow_root(&mut self, root: HostPhysAddr) {
        self.run_on_shadow_root(root);
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
        self.guest_msr(msr)
    }

    fn set_msr(&mut self, msr: HardwareMsr, value: u64) {
        self.set_guest_msr(msr, value);
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
        self.receptiveness()
    }

    fn clear_interrupt_shadow(&mut self) {
        self.note_end_of_shadow();
    }

    fn begin_interrupt_shadow(&mut self, shadow: InterruptShadow) {
        self.begin_shadow(shadow);
    }

    fn inject(&mut self, event: Event) {
        self.deliver_at_entry(event);
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
        self.watch_interrupt_window(wanted);
    }

    fn request_nmi_window(&mut self, wanted: bool) {
        self.watch_nmi_window(wanted);
    }

    fn watch_task_priority(&mut self, class: Option<u8>) {
        // Without a shadow all writes exit, always.
        self.set_threshold(class);
    }

    fn ends_at_deadline(&self) -> bool {
        self.capabilities.controls.preemption_timer
    }

    fn next_rip(&self) -> Option<u64> {
        Some(self.behind_instruction())
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
