// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of the virtual machine control block (AMD APM vol. 2, appendix B).
//!
//! Layout only: no behaviour, no unsafe code.

use core::mem::offset_of;

use bitfield_struct::bitfield;

use crate::state::{DescriptorTable, Segment, SegmentAttributes};

/// Bits of the intercept vectors at offset 0x0C.
#[bitfield(u32)]
pub struct Intercepts1 {
    pub interrupt: bool,
    pub nmi: bool,
    pub smi: bool,
    pub init: bool,
    pub virtual_interrupt: bool,
    pub cr0_selective_write: bool,
    pub idtr_read: bool,
    pub gdtr_read: bool,
    pub ldtr_read: bool,
    pub tr_read: bool,
    pub idtr_write: bool,
    pub gdtr_write: bool,
    pub ldtr_write: bool,
    pub tr_write: bool,
    pub rdtsc: bool,
    pub rdpmc: bool,
    pub pushf: bool,
    pub popf: bool,
    pub cpuid: bool,
    pub rsm: bool,
    pub iret: bool,
    pub int_n: bool,
    pub invd: bool,
    pub pause: bool,
    pub hlt: bool,
    pub invlpg: bool,
    pub invlpga: bool,
    pub port_io: bool,
    pub msr: bool,
    pub task_switch: bool,
    pub ferr_freeze: bool,
    pub shutdown: bool,
}

/// Bits of the intercept vectors at offset 0x10.
#[bitfield(u32)]
pub struct Intercepts2 {
    pub vmrun: bool,
    pub vmmcall: bool,
    pub vmload: bool,
    pub vmsave: bool,
    pub stgi: bool,
    pub clgi: bool,
    pub skinit: bool,
    pub rdtscp: bool,
    pub icebp: bool,
    pub wbinvd: bool,
    pub monitor: bool,
    pub mwait: bool,
    pub mwait_if_armed: bool,
    pub xsetbv: bool,
    pub rdpru: bool,
    pub efer_write_trap: bool,
    #[bits(16)]
    pub cr_write_trap: u16,
}

/// Bits of the intercept vectors at offset 0x14.
#[bitfield(u32)]
pub struct Intercepts3 {
    pub invlpgb: bool,
    pub invlpgb_illegal: bool,
    pub invpcid: bool,
    pub mcommit: bool,
    pub tlbsync: bool,
    #[bits(27)]
    __: u32,
}

/// Virtual interrupt control at offset 0x60.
#[bitfield(u64)]
pub struct InterruptControl {
    pub tpr: u8,
    pub irq: bool,
    pub vgif: bool,
    #[bits(6)]
    __: u8,
    #[bits(4)]
    pub priority: u8,
    pub ignore_tpr: bool,
    #[bits(3)]
    __: u8,
    pub masking: bool,
    #[bits(7)]
    __: u8,
    pub vector: u8,
    #[bits(24)]
    __: u32,
}

/// EVENTINJ and EXITINTINFO at offsets 0xA8 and 0x88.
#[bitfield(u64)]
pub struct EventInfo {
    pub vector: u8,
    /// See [`event_kind`].
    #[bits(3)]
    pub kind: u8,
    pub has_error_code: bool,
    #[bits(19)]
    __: u32,
    pub valid: bool,
    pub error_code: u32,
}

/// Values of [`EventInfo::kind`] (AMD APM vol. 2, 15.20).
pub mod event_kind {
    pub const INTERRUPT: u8 = 0;
    pub const NMI: u8 = 2;
    pub const EXCEPTION: u8 = 3;
    pub const SOFTWARE: u8 = 4;
}

/// EXITINFO1 of an I/O exit (AMD APM vol. 2, 15.10.2).
#[bitfield(u64)]
pub struct PortIoInfo {
    pub is_input: bool,
    __: bool,
    pub is_string: bool,
    pub is_repeated: bool,
    pub byte: bool,
    pub word: bool,
    pub dword: bool,
    #[bits(9)]
    __: u16,
    pub port: u16,
    __: u32,
}

/// EXITINFO1 of a nested page fault (AMD APM vol. 2, 15.25.6).
#[bitfield(u64)]
pub struct NestedFaultInfo {
    pub present: bool,
    pub write: bool,
    pub user: bool,
    pub reserved: bool,
    pub fetch: bool,
    #[bits(27)]
    __: u32,
    pub final_translation: bool,
    pub in_page_walk: bool,
    #[bits(30)]
    __: u32,
}

/// EXITINFO2 of a task switch (AMD APM vol. 2, 15.14.1).
#[bitfield(u64)]
pub struct TaskSwitchInfo {
    pub error_code: u32,
    #[bits(4)]
    __: u8,
    pub is_return: bool,
    __: bool,
    pub is_jump: bool,
    #[bits(5)]
    __: u8,
    pub has_error_code: bool,
    #[bits(3)]
    __: u8,
    /// RFLAGS.RF as the old task saves it.
    pub resume: bool,
    #[bits(15)]
    __: u16,
}

/// Values of the TLB control field at offset 0x5C (AMD APM vol. 2, 15.16.1).
pub mod tlb_control {
    pub const KEEP: u8 = 0;
    pub const FLUSH_ALL: u8 = 1;
    pub const FLUSH_ASID: u8 = 3;
}

/// A segment register in the save area.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct VmcbSegment {
    pub selector: u16,
    pub attributes: u16,
    pub limit: u32,
    pub base: u64,
}

impl From<Segment> for VmcbSegment {
    fn from(segment: Segment) -> Self {
        // The twelve attribute bits are packed as SegmentAttributes packs them; a segment
        // that is not usable is one that is not present.
        let attributes = segment.attributes;
        let present = attributes.present() && !attributes.unusable();
        let attributes = attributes.with_present(present);
        Self {
            selector: segment.selector,
            attributes: (attributes.into_bits() & 0xFFF) as u16,
            limit: segment.limit,
            base: segment.base,
        }
    }
}

impl From<VmcbSegment> for Segment {
    #[inline]
    fn from(segment: VmcbSegment) -> Self {
        let attributes = SegmentAttributes::from_bits(u32::from(segment.attributes) & 0xFFF);
        Self {
            selector: segment.selector,
            limit: segment.limit,
            base: segment.base,
            attributes: attributes.with_unusable(!attributes.present()),
        }
    }
}

impl From<DescriptorTable> for VmcbSegment {
    fn from(table: DescriptorTable) -> Self {
        Self { limit: u32::from(table.limit), base: table.base, ..Self::default() }
    }
}

impl From<VmcbSegment> for DescriptorTable {
    fn from(segment: VmcbSegment) -> Self {
        Self { base: segment.base, limit: segment.limit as u16 }
    }
}

/// The control area: what to intercept, and why the guest exited.
#[repr(C)]
pub struct ControlArea {
    pub cr_reads: u16,
    pub cr_writes: u16,
    pub dr_reads: u16,
    pub dr_writes: u16,
    pub exceptions: u32,
    pub intercepts1: Intercepts1,
    pub intercepts2: Intercepts2,
    pub intercepts3: Intercepts3,
    _reserved_18: [u8; 0x24],
    pub pause_filter_threshold: u16,
    pub pause_filter_count: u16,
    pub io_permission_map: u64,
    pub msr_permission_map: u64,
    pub tsc_offset: u64,
    pub asid: u32,
    pub tlb_control: u8,
    _reserved_5d: [u8; 3],
    pub interrupt_control: InterruptControl,
    pub interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_info1: u64,
    pub exit_info2: u64,
    pub exit_interrupt_info: EventInfo,
    pub nested_enable: u64,
    _avic_and_ghcb: [u64; 2],
    pub event_injection: EventInfo,
    pub nested_cr3: u64,
    pub lbr_virtualization: u64,
    pub clean: u64,
    pub next_rip: u64,
    pub fetched_count: u8,
    pub fetched_bytes: [u8; 15],
    _reserved_e0: [u8; 0x320],
}

/// The state save area.
#[repr(C)]
pub struct SaveArea {
    pub es: VmcbSegment,
    pub cs: VmcbSegment,
    pub ss: VmcbSegment,
    pub ds: VmcbSegment,
    pub fs: VmcbSegment,
    pub gs: VmcbSegment,
    pub gdtr: VmcbSegment,
    pub ldtr: VmcbSegment,
    pub idtr: VmcbSegment,
    pub tr: VmcbSegment,
    _reserved_a0: [u8; 0x2B],
    pub cpl: u8,
    _reserved_cc: [u8; 4],
    pub efer: u64,
    _reserved_d8: [u8; 0x70],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    _reserved_180: [u8; 0x58],
    pub rsp: u64,
    _shadow_stack: [u64; 3],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    _reserved_248: [u8; 0x20],
    pub pat: u64,
    pub debug_ctl: u64,
    _last_branch: [u64; 4],
    _reserved_298: [u8; 0x968],
}

/// A virtual machine control block.
#[repr(C, align(4096))]
pub struct Vmcb {
    pub control: ControlArea,
    pub save: SaveArea,
}

const _: () = {
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(ControlArea, pause_filter_threshold) == 0x3C);
    assert!(offset_of!(ControlArea, io_permission_map) == 0x40);
    assert!(offset_of!(ControlArea, interrupt_control) == 0x60);
    assert!(offset_of!(ControlArea, exit_code) == 0x70);
    assert!(offset_of!(ControlArea, nested_enable) == 0x90);
    assert!(offset_of!(ControlArea, event_injection) == 0xA8);
    assert!(offset_of!(ControlArea, next_rip) == 0xC8);
    assert!(offset_of!(ControlArea, fetched_bytes) == 0xD1);
    assert!(offset_of!(SaveArea, cpl) == 0xCB);
    assert!(offset_of!(SaveArea, efer) == 0xD0);
    assert!(offset_of!(SaveArea, cr4) == 0x148);
    assert!(offset_of!(SaveArea, rip) == 0x178);
    assert!(offset_of!(SaveArea, rsp) == 0x1D8);
    assert!(offset_of!(SaveArea, rax) == 0x1F8);
    assert!(offset_of!(SaveArea, cr2) == 0x240);
    assert!(offset_of!(SaveArea, pat) == 0x268);
    assert!(offset_of!(SaveArea, debug_ctl) == 0x270);
};

/// An exit code. An open set: unknown values are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct ExitCode(pub u64);

/// Exit codes (AMD APM vol. 2, appendix C).
impl ExitCode {
    pub const READ_CR0: u64 = 0x00;
    pub const WRITE_CR15: u64 = 0x1F;
    pub const EXCEPTION_0: u64 = 0x40;
    pub const MACHINE_CHECK: u64 = 0x52;
    pub const PAGE_FAULT: u64 = 0x4E;
    pub const EXCEPTION_31: u64 = 0x5F;
    pub const INTERRUPT: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const SMI: u64 = 0x62;
    pub const INIT: u64 = 0x63;
    pub const VIRTUAL_INTERRUPT: u64 = 0x64;
    pub const RDPMC: u64 = 0x6F;
    pub const CPUID: u64 = 0x72;
    pub const RSM: u64 = 0x73;
    pub const IRET: u64 = 0x74;
    pub const INVD: u64 = 0x76;
    pub const PAUSE: u64 = 0x77;
    pub const HLT: u64 = 0x78;
    pub const INVLPG: u64 = 0x79;
    pub const INVLPGA: u64 = 0x7A;
    pub const PORT_IO: u64 = 0x7B;
    pub const MSR: u64 = 0x7C;
    pub const TASK_SWITCH: u64 = 0x7D;
    pub const SHUTDOWN: u64 = 0x7F;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const SKINIT: u64 = 0x86;
    pub const WBINVD: u64 = 0x89;
    pub const MONITOR: u64 = 0x8A;
    pub const MWAIT: u64 = 0x8B;
    pub const MWAIT_IF_ARMED: u64 = 0x8C;
    pub const XSETBV: u64 = 0x8D;
    pub const RDPRU: u64 = 0x8E;
    pub const INVLPGB: u64 = 0xA0;
    pub const TLBSYNC: u64 = 0xA4;
    pub const NESTED_PAGE_FAULT: u64 = 0x400;
    pub const INVALID: u64 = u64::MAX;
    /// As QEMU 7.2 stores it.
    pub const INVALID_32: u64 = 0xFFFF_FFFF;
    pub const FERR_FREEZE: u64 = 0x7E;

    /// VMRUN refused the guest's state.
    pub const fn is_invalid(code: u64) -> bool {
        code == Self::INVALID || code == Self::INVALID_32
    }
}
