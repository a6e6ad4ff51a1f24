// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual CPU as the emulator sees it.

use crate::paging::walk::{AddressSpace, PagingFeatures};
use crate::state::{
    ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentRegister, cr0, efer,
    rflags as flag_bits,
};

/// Registers of a virtual CPU that is stopped at an instruction.
///
/// The emulator reads what it needs and writes registers only once nothing can fault any more,
/// except between the iterations of a repeated string instruction.
pub trait EmulatorCpu {
    /// A general-purpose register, all 64 bits.
    fn gpr(&self, register: Gpr) -> u64;

    /// Writes all 64 bits of a general-purpose register.
    fn set_gpr(&mut self, register: Gpr, value: u64);

    /// RIP of the instruction (an offset in CS).
    fn rip(&self) -> u64;

    /// Sets RIP.
    fn set_rip(&mut self, value: u64);

    /// RFLAGS.
    fn rflags(&self) -> u64;

    /// Sets RFLAGS.
    fn set_rflags(&mut self, value: u64);

    /// A segment register with its hidden part; in 64-bit mode the bases of FS and GS are
    /// those of their MSRs.
    fn segment(&self, register: SegmentRegister) -> Segment;

    /// Sets a segment register with its hidden part, checked as the mode demands.
    fn set_segment(&mut self, register: SegmentRegister, value: Segment);

    /// GDTR and IDTR.
    fn descriptor_tables(&self) -> (DescriptorTable, DescriptorTable);

    /// Sets GDTR and IDTR.
    fn set_descriptor_tables(&mut self, gdtr: DescriptorTable, idtr: DescriptorTable);

    /// Debug register `number`: 0 to 3, 6 or 7.
    fn debug_register(&self, number: u8) -> u64;

    /// Sets debug register `number`: 0 to 3, 6 or 7; reserved bits are as they have to be.
    fn set_debug_register(&mut self, number: u8, value: u64);

    /// The time-stamp counter as RDTSC reads it.
    fn time_stamp(&self) -> u64;

    /// TSC_AUX as RDTSCP reads it; none if the processor model has no RDTSCP.
    fn time_stamp_auxiliary(&self) -> Option<u32> {
        None
    }

    /// An instruction is complete: the shadow that it stood in ends, and one of its own
    /// begins.
    fn set_interrupt_shadow(&mut self, shadow: Option<InterruptShadow>);

    /// An IRET is complete: NMIs are not blocked any more.
    fn end_nmi_blocking(&mut self);

    /// Sets CR0.TS, as a switch of tasks does.
    fn set_task_switched(&mut self);

    /// Loads CR3 as a switch of tasks does, and with it the top entries of PAE paging if the
    /// processor keeps them; both were checked.
    fn load_page_tables(&mut self, cr3: u64, page_directory_pointers: Option<[u64; 4]>);

    /// The control registers and EFER.
    fn control(&self) -> ControlRegisters;

    /// Current privilege level, 0 to 3.
    fn cpl(&self) -> u8;

    /// What the processor model offers to paging.
    fn paging_features(&self) -> PagingFeatures;

    /// In PAE paging, its top entries if the processor keeps them; see
    /// [`AddressSpace::page_directory_pointers`].
    fn page_directory_pointers(&self) -> Option<[u64; 4]>;
}

/// Default size of operands and addresses in the code segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CodeSize {
    Bits16,
    Bits32,
    Bits64,
}

/// Operating mode at one instruction (AMD APM vol. 1, 1.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    pub code: CodeSize,
    /// CR0.PE, and not virtual-8086 mode: descriptors decide about segments.
    pub descriptors: bool,
    /// CR0.PE.
    pub protected: bool,
    /// RFLAGS.VM in protected mode.
    pub virtual_8086: bool,
    /// EFER.LMA: 64-bit mode or compatibility mode.
    pub long: bool,
}

impl Mode {
    pub fn of(control: &ControlRegisters, rflags: u64, cs: &Segment) -> Self {
        let protected = control.cr0 & cr0::PE != 0;
        let long = control.efer & efer::LMA != 0;
        let virtual_8086 = protected && !long && rflags & flag_bits::VM != 0;
        let code = if long && cs.attributes.long() {
            CodeSize::Bits64
        } else if cs.attributes.default_big() && !virtual_8086 {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        };
        Self { code, descriptors: protected && !virtual_8086, protected, virtual_8086, long }
    }

    pub fn is_64_bit(&self) -> bool {
        self.code == CodeSize::Bits64
    }

    /// Address in a table that the CPU itself accesses, which has 64 bits in compatibility mode,
    /// too (Intel SDM vol. 3, 2.4).
    pub fn system_address(&self, linear: u64) -> u64 {
        if self.long { linear } else { linear & 0xFFFF_FFFF }
    }

    /// Instruction pointer `length` bytes on.
    pub fn advance(&self, rip: u64, length: u64) -> u64 {
        let next = rip.wrapping_add(length);
        if self.is_64_bit() { next } else { next & 0xFFFF_FFFF }
    }
}

/// The address space `cpu` runs in now.
pub fn address_space(cpu: &impl EmulatorCpu) -> AddressSpace {
    let control = cpu.control();
    let pae = control.uses_pae_paging();
    AddressSpace {
        control,
        alignment_check: cpu.rflags() & flag_bits::AC != 0,
        features: cpu.paging_features(),
        page_directory_pointers: if pae { cpu.page_directory_pointers() } else { None },
    }
}
