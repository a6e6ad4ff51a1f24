// SPDX-License-Identifier: MIT OR Apache-2.0
//! Architectural state of a virtual CPU in vendor-neutral form.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// General-purpose registers in encoding order (AMD APM vol. 3, table 1-10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// All registers in encoding order.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The register with encoding `number & 15`.
    pub const fn from_encoding(number: u8) -> Self {
        Self::ALL[(number & 15) as usize]
    }
}

/// Segment registers, in encoding order, and the two system segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub enum SegmentRegister {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
}

/// Attributes of a segment: bits 40–47 and 52–55 of its descriptor, packed, plus the
/// unusable mark that VT-x keeps for a null selector.
#[bitfield(u32)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentAttributes {
    /// Type field.
    #[bits(4)]
    pub kind: u8,
    /// S: set for code and data, clear for system segments.
    pub code_or_data: bool,
    /// Descriptor privilege level.
    #[bits(2)]
    pub dpl: u8,
    /// P: present.
    pub present: bool,
    /// AVL: available to software.
    pub available: bool,
    /// L: 64-bit code.
    pub long: bool,
    /// D/B: 32-bit default size.
    pub default_big: bool,
    /// G: limit counted in 4 KiB units.
    pub granularity: bool,
    #[bits(4)]
    __: u8,
    /// The register holds no usable segment.
    pub unusable: bool,
    #[bits(15)]
    __: u16,
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Limit in bytes, already expanded by the granularity bit.
    pub limit: u32,
    /// Base address; canonical in long mode.
    pub base: u64,
    /// Attributes.
    pub attributes: SegmentAttributes,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DescriptorTable {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// The control registers that decide how memory is accessed, read at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR2: address of the last page fault.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

impl ControlRegisters {
    /// PAE paging: 8-byte entries outside long mode (Intel SDM vol. 3, 4.1.1).
    pub const fn uses_pae_paging(&self) -> bool {
        self.cr0 & cr0::PG != 0 && self.cr4 & cr4::PAE != 0 && self.efer & efer::LMA == 0
    }
}

/// Bits of CR0 (AMD APM vol. 2, 3.1.1).
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod cr0 {
    pub const PE: u64 = 1 << 0;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
    /// Every defined bit.
    pub const DEFINED: u64 = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
}

/// Bits of CR4 (AMD APM vol. 2, 3.1.3).
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod cr4 {
    pub const VME: u64 = 1 << 0;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const LA57: u64 = 1 << 12;
    pub const VMXE: u64 = 1 << 13;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
}

/// Bits of DR6 (AMD APM vol. 2, 13.1.1.3; Intel SDM vol. 3, 17.2.3).
pub mod dr6 {
    /// B0 to B3: breakpoints that were met.
    pub const BREAKPOINTS: u64 = 0xF;
    /// BD: an access to a debug register.
    pub const GENERAL_DETECT: u64 = 1 << 13;
    /// BS: a single step.
    pub const SINGLE_STEP: u64 = 1 << 14;
    /// BT: a switch to a task whose T bit is set.
    pub const TASK_SWITCH: u64 = 1 << 15;
    /// All that name a cause.
    pub const CAUSES: u64 = BREAKPOINTS | GENERAL_DETECT | SINGLE_STEP | TASK_SWITCH;
    /// The bits that are always one: the value after reset (AMD APM vol. 2, table 14-1).
    pub const FIXED: u64 = 0xFFFF_0FF0;
}

/// Bits of DR7 (AMD APM vol. 2, 13.1.1.4; Intel SDM vol. 3, 17.2.4).
pub mod dr7 {
    /// L0 to L3 and LE: breakpoints that end with the task.
    pub const LOCAL: u64 = 0x155;
    /// GD: accesses to debug registers trap.
    pub const GENERAL_DETECT: u64 = 1 << 13;
    /// The bit that is always one: the value after reset (AMD APM vol. 2, table 14-1).
    pub const FIXED: u64 = 1 << 10;
    /// All others that are defined.
    pub const DEFINED: u64 = 0xFFFF_2BFF;
}

/// Bits of EFER (AMD APM vol. 2, 3.1.7).
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod efer {
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
    pub const SVME: u64 = 1 << 12;
    pub const LMSLE: u64 = 1 << 13;
    pub const FFXSR: u64 = 1 << 14;
    pub const TCE: u64 = 1 << 15;
}

/// Bits of RFLAGS (AMD APM vol. 2, 3.1.4).
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod rflags {
    pub const CF: u64 = 1 << 0;
    /// Always one.
    pub const FIXED: u64 = 1 << 1;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const ID: u64 = 1 << 21;
}

/// What keeps events off the instruction after it (Intel SDM vol. 3, 6.8.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptShadow {
    /// STI that set RFLAGS.IF.
    Sti,
    /// MOV to SS or POP SS, which keep debug traps off, too.
    MovSs,
}

/// An interrupt or exception vector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Vector(pub u8);

/// An exception to be delivered to the guest (AMD APM vol. 2, 8.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exception {
    /// Vector, below 32.
    pub vector: Vector,
    /// Error code, for the vectors that push one.
    pub error_code: Option<u32>,
    /// Address for CR2; page faults only.
    pub fault_address: Option<u64>,
}

impl Exception {
    /// #DE.
    pub const DIVIDE: Self = Self::plain(0);
    /// #DB.
    pub const DEBUG: Self = Self::plain(1);
    /// #BR.
    pub const BOUND: Self = Self::plain(5);
    /// #UD.
    pub const INVALID_OPCODE: Self = Self::plain(6);
    /// #NM.
    pub const DEVICE_NOT_AVAILABLE: Self = Self::plain(7);
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self::with_code(13, 0);
    /// #SS(0).
    pub const STACK: Self = Self::with_code(12, 0);
    /// #MF.
    pub const FLOATING_POINT: Self = Self::plain(16);
    /// #AC(0).
    pub const ALIGNMENT_CHECK: Self = Self::with_code(17, 0);

    const fn plain(vector: u8) -> Self {
        Self { vector: Vector(vector), error_code: None, fault_address: None }
    }

    /// #TS, #NP, #SS or #GP with an error code.
    pub(crate) const fn with_code(vector: u8, code: u32) -> Self {
        Self { vector: Vector(vector), error_code: Some(code), fault_address: None }
    }

    /// #PF at the linear address `address`.
    pub const fn page_fault(address: u64, error_code: u32) -> Self {
        Self { vector: Vector(14), error_code: Some(error_code), fault_address: Some(address) }
    }
}
