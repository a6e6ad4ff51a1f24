// SPDX-License-Identifier: MIT OR Apache-2.0
//! A backend whose hardware is plain fields and whose guest is a closure.

use alloc::{boxed::Box, collections::VecDeque, string::String, vec::Vec};

use hashbrown::HashMap;
use host_iface::{Host, HostError, HostPhysAddr, PageRequest, Tsc};

use crate::{
    Event, Exit,
    apic::{ApicMode, InterruptState},
    backend::{
        ApicRole, Backend, EntryGate, HardwareMsr, Interruptibility, Unsupported, VcpuBackend,
        VcpuSetup,
    },
    cpuid::Vendor,
    memory::OwnedPages,
    paging::LongModeEntries,
    state::{
        ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentAttributes,
        SegmentRegister, cr0, cr4, efer, rflags,
    },
};

/// What the guest does between an entry and the exit that ends it. It sees the event that
/// the entry delivers.
pub type Guest = Box<dyn FnMut(&mut Registers, Option<Event>) -> Exit + Send>;

/// What the VMM asked of the hardware for one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of the backend's methods")]
pub struct Requests {
    pub interrupt_window: bool,
    pub nmi_window: bool,
    pub watched_class: Option<u8>,
}

/// The state of one vCPU.
#[derive(Clone, Default)]
#[expect(
    missing_docs,
    reason = "the names are the architecture's or those of the backend's methods"
)]
pub struct Registers {
    pub gprs: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub segments: [Segment; 8],
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    pub control: ControlRegisters,
    pub cpl: u8,
    pub dr6: u64,
    pub dr7: u64,
    pub breakpoints: [u64; 4],
    pub msrs: HashMap<u8, u64>,
    pub xcr0: u64,
    pub tsc_aux: u32,
    pub tsc_offset: u64,
    pub cr8: u8,
    pub in_shadow: bool,
    pub nmi_blocked: bool,
    /// Interrupts that the hardware delivers, if it does.
    pub interrupts: InterruptState,
    /// Copies of the local APIC's registers, by offset.
    pub apic_registers: HashMap<u16, u32>,
    /// The moment at which the last entry was to end by itself.
    pub hardware_deadline: Option<Tsc>,
    /// What the exit cut short.
    pub interrupted: Option<Event>,
    pub requests: Requests,
    pub next_rip: Option<u64>,
    pub instruction_bytes: Option<Vec<u8>>,
    /// Events as the guest got them, in order.
    pub delivered: Vec<Event>,
    pub barriers: u32,
    /// Machine checks that were dealt with.
    pub machine_checks: u32,
    pub flushes: u32,
    pub resets: u32,
    pub shadow_root: Option<HostPhysAddr>,
}

impl Registers {
    /// Reads a general-purpose register.
    pub fn gpr(&self, register: Gpr) -> u64 {
        self.gprs[register as usize]
    }

    /// Writes one.
    pub fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.gprs[register as usize] = value;
    }

    /// Sets or clears RFLAGS.IF.
    pub fn set_interrupts_enabled(&mut self, enabled: bool) {
        self.rflags = self.rflags & !rflags::IF | if enabled { rflags::IF } else { 0 };
    }

    /// Flat 32-bit protected mode at `rip`, at privilege level 0 and with interrupts disabled.
    pub fn enter_protected_mode(&mut self, rip: u64) {
        let data = SegmentAttributes::new()
            .with_kind(3)
            .with_code_or_data(true)
            .with_present(true)
            .with_default_big(true)
            .with_granularity(true);
        let flat = |attributes| Segment { selector: 8, limit: u32::MAX, base: 0, attributes };
        self.segments[..6].fill(flat(data));
        *self.segment_mut(SegmentRegister::Cs) = flat(data.with_kind(11));
        self.control = ControlRegisters { cr0: cr0::PE | cr0::ET, ..ControlRegisters::default() };
        (self.rip, self.rflags, self.cpl) = (rip, rflags::FIXED, 0);
    }

    /// From flat protected mode to 64-bit mode at `rip`, with the page tables at `cr3`.
    pub fn enter_long_mode(&mut self, cr3: u64, rip: u64) {
        self.control = ControlRegisters {
            cr0: cr0::PE | cr0::ET | cr0::PG,
            cr3,
            cr4: cr4::PAE,
            efer: efer::LME | efer::LMA,
            ..ControlRegisters::default()
        };
        let code = self.segment_mut(SegmentRegister::Cs);
        code.attributes = code.attributes.with_long(true).with_default_big(false);
        self.rip = rip;
    }

    /// A segment register.
    pub fn segment_mut(&mut self, register: SegmentRegister) -> &mut Segment {
        &mut self.segments[register as usize]
    }
}

/// A guest that goes through `exits` and then shuts down.
pub fn script(exits: impl IntoIterator<Item = Exit>) -> Guest {
    let mut exits: VecDeque<Exit> = exits.into_iter().collect();
    Box::new(move |_, _| exits.pop_front().unwrap_or(Exit::Shutdown))
}

/// The hardware of one vCPU.
pub struct MockVcpu {
    /// Its state.
    pub registers: Registers,
    /// What runs on it.
    pub guest: Guest,
    /// The event that the next entry delivers.
    pub injected: Option<Event>,
    /// It is bound to a CPU.
    pub loaded: bool,
    /// It delivers the local APIC's interrupts itself.
    pub delivers_interrupts: bool,
    /// It ends entries at the deadline itself.
    pub has_own_timer: bool,
    /// The states that it cannot enter.
    pub cannot_enter: fn(&Registers) -> bool,
    /// What an OS reads of the vCPU's memory use.
    control_block: OwnedPages,
}

impl VcpuBackend for MockVcpu {
    const KEEPS_PAGE_DIRECTORY_POINTERS: bool = false;

    fn cr4(&self) -> u64 {
        self.control_registers().cr4
    }

    fn load(&mut self) -> bool {
        assert!(!self.loaded);
        self.loaded = true;
        true
    }

    fn put(&mut self) {
        assert!(self.loaded);
        self.loaded = false;
    }

    fn run(&mut self, gate: &mut EntryGate<'_>) -> Exit {
        assert!(self.loaded, "a vCPU is loaded before it runs");
        let event = self.injected.take();
        if !gate.opens() {
            self.registers.interrupted = event;
            return Exit::NotEntered;
        }
        self.registers.hardware_deadline = gate.hardware_deadline();
        self.registers.delivered.extend(event);
        (self.guest)(&mut self.registers, event)
    }

    fn gpr(&self, register: Gpr) -> u64 {
        self.registers.gpr(register)
    }
    fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.registers.set_gpr(register, value);
    }
    fn rip(&self) -> u64 {
        self.registers.rip
    }
    fn set_rip(&mut self, value: u64) {
        self.registers.rip = value;
    }
    fn rflags(&self) -> u64 {
        self.registers.rflags
    }
    fn set_rflags(&mut self, value: u64) {
        self.registers.rflags = value;
    }
    fn segment(&self, register: SegmentRegister) -> Segment {
        self.registers.segments[register as usize]
    }
    fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        self.registers.segments[register as usize] = segment;
    }
    fn descriptor_tables(&self) -> (DescriptorTable, DescriptorTable) {
        (self.registers.gdtr, self.registers.idtr)
    }
    fn set_descriptor_tables(&mut self, gdtr: DescriptorTable, idtr: DescriptorTable) {
        (self.registers.gdtr, self.registers.idtr) = (gdtr, idtr);
    }
    fn control_registers(&self) -> ControlRegisters {
        self.registers.control
    }
    fn set_control_registers(&mut self, value: ControlRegisters) {
        self.registers.control = value;
    }
    fn set_shadow_root(&mut self, root: HostPhysAddr) {
        self.registers.shadow_root = Some(root);
    }
    fn cpl(&self) -> u8 {
        self.registers.cpl
    }
    fn debug_status_control(&self) -> (u64, u64) {
        (self.registers.dr6, self.registers.dr7)
    }
    fn set_debug_status_control(&mut self, dr6: u64, dr7: u64) {
        (self.registers.dr6, self.registers.dr7) = (dr6, dr7);
    }
    fn msr(&self, msr: HardwareMsr) -> u64 {
        self.registers.msrs.get(&(msr as u8)).copied().unwrap_or(0)
    }
    fn set_msr(&mut self, msr: HardwareMsr, value: u64) {
        self.registers.msrs.insert(msr as u8, value);
    }
    fn xcr0(&self) -> u64 {
        self.registers.xcr0
    }
    fn set_xcr0(&mut self, value: u64) {
        self.registers.xcr0 = value;
    }
    fn tsc_aux(&self) -> u32 {
        self.registers.tsc_aux
    }
    fn set_tsc_aux(&mut self, value: u32) {
        self.registers.tsc_aux = value;
    }
    fn tsc_offset(&self) -> u64 {
        self.registers.tsc_offset
    }
    fn set_tsc_offset(&mut self, offset: u64) {
        self.registers.tsc_offset = offset;
    }
    fn task_priority(&self) -> u8 {
        self.registers.cr8 << 4
    }
    fn set_task_priority(&mut self, priority: u8) {
        self.registers.cr8 = priority >> 4;
    }
    fn set_apic_mode(&mut self, mode: ApicMode, delivers: bool) -> ApicRole {
        let delivers = self.delivers_interrupts && delivers && mode != ApicMode::Disabled;
        ApicRole { delivers, shows_registers: delivers && mode == ApicMode::XApic }
    }
    fn load_interrupts(&mut self, state: &InterruptState) {
        self.registers.interrupts = *state;
    }
    fn interrupts(&self) -> InterruptState {
        self.registers.interrupts
    }
    fn apic_register(&self, offset: u16) -> u32 {
        self.registers.apic_registers.get(&offset).copied().unwrap_or(0)
    }
    fn set_apic_register(&mut self, offset: u16, value: u32) {
        self.registers.apic_registers.insert(offset, value);
    }
    fn ends_at_deadline(&self) -> bool {
        self.has_own_timer
    }

    fn interruptibility(&self) -> Interruptibility {
        Interruptibility {
            interrupts_enabled: self.registers.rflags & rflags::IF != 0,
            in_shadow: self.registers.in_shadow,
            nmi_blocked: self.registers.nmi_blocked,
        }
    }
    fn clear_interrupt_shadow(&mut self) {
        self.registers.in_shadow = false;
    }
    fn begin_interrupt_shadow(&mut self, _: InterruptShadow) {
        self.registers.in_shadow = true;
    }
    fn can_enter(&self) -> bool {
        !(self.cannot_enter)(&self.registers)
    }
    fn breakpoint_address(&self, number: u8) -> u64 {
        self.registers.breakpoints[usize::from(number)]
    }
    fn set_breakpoint_address(&mut self, number: u8, address: u64) {
        self.registers.breakpoints[usize::from(number)] = address;
    }
    fn inject(&mut self, event: Event) {
        assert_eq!(self.injected, None, "at most one event for an entry");
        self.injected = Some(event);
        self.registers.nmi_blocked |= event == Event::Nmi;
    }
    fn has_interrupted_event(&self) -> bool {
        self.registers.interrupted.is_some()
    }
    fn take_interrupted_event(&mut self) -> Option<Event> {
        let event = self.registers.interrupted.take();
        if event == Some(Event::Nmi) {
            self.registers.nmi_blocked = false;
        }
        event
    }
    fn request_interrupt_window(&mut self, wanted: bool) {
        self.registers.requests.interrupt_window = wanted;
    }
    fn set_nmi_blocking(&mut self, blocked: bool) {
        self.registers.nmi_blocked = blocked;
    }
    /// INIT alone asks for it.
    fn drop_pending_debug_exceptions(&mut self) {
        self.registers.resets += 1;
    }
    fn request_nmi_window(&mut self, wanted: bool) {
        self.registers.requests.nmi_window = wanted;
    }
    fn watch_task_priority(&mut self, class: Option<u8>) {
        self.registers.requests.watched_class = class;
    }

    fn next_rip(&self) -> Option<u64> {
        self.registers.next_rip
    }
    fn instruction_bytes(&self) -> Option<&[u8]> {
        self.registers.instruction_bytes.as_deref()
    }
    fn control_bytes(&self) -> usize {
        self.control_block.bytes()
    }
    fn prediction_barrier(&mut self) {
        self.registers.barriers += 1;
    }
    fn end_machine_check(&mut self) {
        self.registers.machine_checks += 1;
    }
    #[cfg(feature = "fault-injection")]
    fn spoil_entry(&mut self, _: &str) -> bool {
        false
    }

    fn flush_tlb(&mut self) {
        self.registers.flushes += 1;
    }
}

/// The mock machine.
pub struct MockBackend {
    /// The host that gives it memory.
    pub host: &'static dyn Host,
}

impl Backend for MockBackend {
    type Vcpu = MockVcpu;
    type Entries = LongModeEntries;
    const NAME: &'static str = "mock";
    const VENDOR: Vendor = Vendor::Amd;

    fn probe(host: &'static dyn Host) -> Result<Self, Unsupported> {
        Ok(Self { host })
    }

    fn capabilities(&self) -> Vec<String> {
        Vec::new()
    }

    fn has_nested_paging(&self) -> bool {
        true
    }

    fn has_huge_pages(&self) -> bool {
        true
    }

    fn create_vcpu(&self, setup: VcpuSetup) -> Result<MockVcpu, HostError> {
        let registers = Registers { tsc_offset: setup.tsc_offset, ..Registers::default() };
        let control_block = OwnedPages::zeroed(self.host, PageRequest::contiguous(1))?;
        let guest = script([]);
        Ok(MockVcpu {
            registers,
            guest,
            injected: None,
            loaded: false,
            delivers_interrupts: false,
            has_own_timer: false,
            cannot_enter: |_| false,
            control_block,
        })
    }

    fn enter_cpu(&self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn leave_cpu(&self) {}
}
