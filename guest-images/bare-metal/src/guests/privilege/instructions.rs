// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instructions that can exit, and what they do where (Intel SDM volumes 2 and 3, chapter 25;
//! AMD APM volumes 2, 15.7 to 15.13, and 3).

use super::place::{Place, Rights, Width};
use super::{EXECUTED, OPERAND};
use crate::rt::cpu::{cpuid, is_bare_tcg};
use crate::rt::start_info::is_tcg_cpu;
use crate::rt::trap::{BP, GP, UD};

/// What an instruction does, by mode and privilege level.
#[derive(Clone, Copy)]
pub enum Rule {
    /// It is executed anywhere.
    Anywhere,
    /// #GP but at privilege level 0.
    Privileged,
    /// The same, and not to be executed there, because nothing would end it.
    PrivilegedOnly,
    /// #GP anywhere. Bare QEMU refuses nothing of the kind.
    Refused,
    /// It does not exist. Some CPUs look at the privilege level first.
    Undefined,
    /// It exists if CPUID shows it.
    Shown(fn() -> bool),
    /// #UD in real and virtual-8086 mode.
    Protected,
    /// The same, and privileged.
    ProtectedPrivileged,
    /// The same, and refused: its selector is null. QEMU's TCG loads it.
    ProtectedRefused,
    /// 64-bit mode only, and privileged.
    LongPrivileged,
    /// Port I/O: by IOPL and the I/O permission bitmap, of which there is none.
    Port,
    /// By IOPL.
    InterruptFlag,
    /// In virtual-8086 mode by IOPL.
    Virtual,
    /// Refused in one way or another.
    RefusedOrUndefined,
    /// A call to a VMM, which may be there and may know it.
    Hypercall,
    /// Traps with this vector, anywhere.
    Trap(u64),
}

/// An instruction and the registers that it is executed with.
pub struct Instruction {
    pub name: &'static str,
    /// In 16-bit code, where the encoding differs, and elsewhere.
    bytes: [&'static [u8]; 2],
    /// EAX, ECX and EDX.
    registers: [u32; 3],
    rule: Rule,
}

const fn plain(name: &'static str, bytes: &'static [u8], rule: Rule) -> Instruction {
    with(name, bytes, [0; 3], rule)
}

const fn with(
    name: &'static str,
    bytes: &'static [u8],
    registers: [u32; 3],
    rule: Rule,
) -> Instruction {
    Instruction { name, bytes: [bytes, bytes], registers, rule }
}

/// With an operand in memory at BX, EBX or RBX.
const fn memory(
    name: &'static str,
    bytes16: &'static [u8],
    bytes: &'static [u8],
    rule: Rule,
) -> Instruction {
    Instruction { name, bytes: [bytes16, bytes], registers: [0; 3], rule }
}

impl Instruction {
    /// Its bytes in code of `width`.
    pub fn bytes(&self, width: Width) -> &'static [u8] {
        let [bytes16, bytes] = self.bytes;
        if width == Width::Bits16 { bytes16 } else { bytes }
    }

    /// The registers to load, by encoding, and their values.
    pub fn registers(&self) -> [(u8, u32); 4] {
        let [eax, ecx, edx] = self.registers;
        [(0, eax), (1, ecx), (2, edx), (3, OPERAND)]
    }

    /// Whether what it raises is reported behind it.
    pub fn traps(&self) -> bool {
        matches!(self.rule, Rule::Trap(_))
    }

    /// The vectors that are right there; `None` if it is not to be tried.
    pub fn expected(&self, place: &Place) -> Option<&'static [u64]> {
        use Rights::{Kernel, Real, User, Virtual8086, Virtual8086Io};

        let no_tables = matches!(place.rights, Real | Virtual8086 | Virtual8086Io);
        let privileged = matches!(place.rights, Kernel | Real);
        let by_privilege = if privileged { DONE } else { REFUSED };
        Some(match self.rule {
            Rule::Anywhere => DONE,
            Rule::Privileged => by_privilege,
            Rule::PrivilegedOnly if privileged => return None,
            Rule::Refused if is_bare_tcg() => return None,
            Rule::PrivilegedOnly | Rule::Refused => REFUSED,
            Rule::Undefined if privileged => UNDEFINED,
            Rule::Undefined | Rule::RefusedOrUndefined => &[UD, GP],
            Rule::Shown(shown) => {
                if shown() {
                    DONE
                } else {
                    UNDEFINED
                }
            }
            Rule::Protected if no_tables => UNDEFINED,
            Rule::Protected => DONE,
            Rule::ProtectedPrivileged if no_tables => UNDEFINED,
            Rule::ProtectedPrivileged => by_privilege,
            Rule::ProtectedRefused if no_tables => UNDEFINED,
            Rule::ProtectedRefused if is_tcg_cpu() => return None,
            Rule::ProtectedRefused => REFUSED,
            Rule::LongPrivileged if place.width == Width::Bits64 => by_privilege,
            Rule::LongPrivileged => return None,
            Rule::Port => by_privilege,
            Rule::InterruptFlag if place.rights == Virtual8086Io => DONE,
            Rule::InterruptFlag => by_privilege,
            Rule::Virtual => match place.rights {
                Virtual8086 => REFUSED,
                Kernel | User | Real | Virtual8086Io => DONE,
            },
            Rule::Hypercall => &[EXECUTED, UD, GP],
            Rule::Trap(BP) => &[BP],
            Rule::Trap(_) => return None,
        })
    }
}

const DONE: &[u64] = &[EXECUTED];
const REFUSED: &[u64] = &[GP];
const UNDEFINED: &[u64] = &[UD];

fn has_rdtscp() -> bool {
    cpuid(0x8000_0001, 0)[3] & 1 << 27 != 0
}

fn has_rdpid() -> bool {
    cpuid(7, 0)[2] & 1 << 22 != 0
}

const APIC_BASE: [u32; 3] = [0, 0x1B, 0];
const KERNEL_GS_BASE: [u32; 3] = [0, 0xC000_0102, 0];
const NO_MSR: [u32; 3] = [0, 0x4000_00F0, 0];
const PAT_WITH_A_RESERVED_TYPE: [u32; 3] = [2, 0x277, 0];
const NO_HYPERCALL: [u32; 3] = [0xFFFF_FFF0, 0, 0];
const NO_COUNTER: [u32; 3] = [0, 0x3FFF_FFFF, 0];
/// DX names a port that no device has side effects at.
const PORT: [u32; 3] = [0, 0, 0x80];

/// All of them. Where an operand has to be what the register holds already, it is read first.
pub const INSTRUCTIONS: &[Instruction] = &[
    plain("CPUID", &[0x0F, 0xA2], Rule::Anywhere),
    with("CPUID of no leaf", &[0x0F, 0xA2], [0x1234_5678, 0, 0], Rule::Anywhere),
    plain("RDTSC", &[0x0F, 0x31], Rule::Anywhere),
    plain("RDTSCP", &[0x0F, 0x01, 0xF9], Rule::Shown(has_rdtscp)),
    plain("RDPID", &[0xF3, 0x0F, 0xC7, 0xF8], Rule::Shown(has_rdpid)),
    plain("PAUSE", &[0xF3, 0x90], Rule::Anywhere),
    plain("INT3", &[0xCC], Rule::Trap(BP)),
    plain("HLT", &[0xF4], Rule::PrivilegedOnly),
    with("RDMSR", &[0x0F, 0x32], APIC_BASE, Rule::Privileged),
    with("WRMSR", &[0x0F, 0x30], KERNEL_GS_BASE, Rule::Privileged),
    with("RDMSR of none", &[0x0F, 0x32], NO_MSR, Rule::Refused),
    with("WRMSR of none", &[0x0F, 0x30], NO_MSR, Rule::Refused),
    with("WRMSR of a reserved type", &[0x0F, 0x30], PAT_WITH_A_RESERVED_TYPE, Rule::Refused),
    with("RDPMC", &[0x0F, 0x33], NO_COUNTER, Rule::RefusedOrUndefined),
    plain("INVD", &[0x0F, 0x08], Rule::Privileged),
    plain("WBINVD", &[0x0F, 0x09], Rule::Privileged),
    plain("CLTS", &[0x0F, 0x06], Rule::Privileged),
    plain("MOV from and to CR0", &[0x0F, 0x20, 0xC0, 0x0F, 0x22, 0xC0], Rule::Privileged),
    plain("MOV from and to CR2", &[0x0F, 0x20, 0xD0, 0x0F, 0x22, 0xD0], Rule::Privileged),
    plain("MOV from and to CR3", &[0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8], Rule::Privileged),
    plain("MOV from and to CR4", &[0x0F, 0x20, 0xE0, 0x0F, 0x22, 0xE0], Rule::Privileged),
    with("MOV to CR4 of a reserved bit", &[0x0F, 0x22, 0xE0], [1 << 31, 0, 0], Rule::Refused),
    plain(
        "MOV from and to CR8",
        &[0x44, 0x0F, 0x20, 0xC0, 0x44, 0x0F, 0x22, 0xC0],
        Rule::LongPrivileged,
    ),
    plain("MOV from CR1", &[0x0F, 0x20, 0xC8], Rule::Undefined),
    plain("MOV from and to DR0", &[0x0F, 0x21, 0xC0, 0x0F, 0x23, 0xC0], Rule::Privileged),
    plain("MOV from and to DR7", &[0x0F, 0x21, 0xF8, 0x0F, 0x23, 0xF8], Rule::Privileged),
    plain("SMSW", &[0x0F, 0x01, 0xE0], Rule::Anywhere),
    with("LMSW", &[0x0F, 0x01, 0xF1], [0, 0x32, 0], Rule::Privileged),
    memory("SGDT", &[0x0F, 0x01, 0x07], &[0x0F, 0x01, 0x03], Rule::Anywhere),
    memory("SIDT", &[0x0F, 0x01, 0x0F], &[0x0F, 0x01, 0x0B], Rule::Anywhere),
    memory("INVLPG", &[0x0F, 0x01, 0x3F], &[0x0F, 0x01, 0x3B], Rule::Privileged),
    plain("SLDT", &[0x0F, 0x00, 0xC0], Rule::Protected),
    plain("STR", &[0x0F, 0x00, 0xC8], Rule::Protected),
    plain("LLDT of null", &[0x0F, 0x00, 0xD0], Rule::ProtectedPrivileged),
    plain("LTR of null", &[0x0F, 0x00, 0xD8], Rule::ProtectedRefused),
    plain("IN", &[0xE4, 0x80], Rule::Port),
    plain("OUT", &[0xE6, 0x80], Rule::Port),
    with("IN of DX", &[0xEC], PORT, Rule::Port),
    with("OUT to DX", &[0xEE], PORT, Rule::Port),
    plain("CLI", &[0xFA], Rule::InterruptFlag),
    plain("STI and CLI", &[0xFB, 0xFA], Rule::InterruptFlag),
    plain("PUSHF and POPF", &[0x9C, 0x9D], Rule::Virtual),
    plain("SYSCALL", &[0x0F, 0x05], Rule::Undefined),
    plain("SYSRET", &[0x0F, 0x07], Rule::RefusedOrUndefined),
    plain("SYSENTER", &[0x0F, 0x34], Rule::RefusedOrUndefined),
    plain("SYSEXIT", &[0x0F, 0x35], Rule::RefusedOrUndefined),
    plain("RSM", &[0x0F, 0xAA], Rule::Undefined),
    plain("XGETBV", &[0x0F, 0x01, 0xD0], Rule::Undefined),
    plain("XSETBV", &[0x0F, 0x01, 0xD1], Rule::Undefined),
    with("VMCALL", &[0x0F, 0x01, 0xC1], NO_HYPERCALL, Rule::Hypercall),
    with("VMMCALL", &[0x0F, 0x01, 0xD9], NO_HYPERCALL, Rule::Hypercall),
    with("VMRUN", &[0x0F, 0x01, 0xD8], [OPERAND, 0, 0], Rule::Undefined),
    with("VMLOAD", &[0x0F, 0x01, 0xDA], [OPERAND, 0, 0], Rule::Undefined),
    with("VMSAVE", &[0x0F, 0x01, 0xDB], [OPERAND, 0, 0], Rule::Undefined),
    plain("STGI", &[0x0F, 0x01, 0xDC], Rule::Undefined),
    plain("CLGI", &[0x0F, 0x01, 0xDD], Rule::Undefined),
    plain("INVLPGA", &[0x0F, 0x01, 0xDF], Rule::Undefined),
    plain("VMLAUNCH", &[0x0F, 0x01, 0xC2], Rule::Undefined),
    plain("VMRESUME", &[0x0F, 0x01, 0xC3], Rule::Undefined),
    plain("VMXOFF", &[0x0F, 0x01, 0xC4], Rule::Undefined),
    plain("VMFUNC", &[0x0F, 0x01, 0xD4], Rule::Undefined),
    plain("VMREAD", &[0x0F, 0x78, 0xC0], Rule::Undefined),
    plain("VMWRITE", &[0x0F, 0x79, 0xC0], Rule::Undefined),
    memory("VMXON", &[0xF3, 0x0F, 0xC7, 0x37], &[0xF3, 0x0F, 0xC7, 0x33], Rule::Undefined),
    memory("VMCLEAR", &[0x66, 0x0F, 0xC7, 0x37], &[0x66, 0x0F, 0xC7, 0x33], Rule::Undefined),
    memory("VMPTRLD", &[0x0F, 0xC7, 0x37], &[0x0F, 0xC7, 0x33], Rule::Undefined),
    memory("VMPTRST", &[0x0F, 0xC7, 0x3F], &[0x0F, 0xC7, 0x3B], Rule::Undefined),
    memory(
        "INVEPT",
        &[0x66, 0x0F, 0x38, 0x80, 0x07],
        &[0x66, 0x0F, 0x38, 0x80, 0x03],
        Rule::Undefined,
    ),
    memory(
        "INVVPID",
        &[0x66, 0x0F, 0x38, 0x81, 0x07],
        &[0x66, 0x0F, 0x38, 0x81, 0x03],
        Rule::Undefined,
    ),
    plain("GETSEC", &[0x0F, 0x37], Rule::Undefined),
    plain("ENCLS", &[0x0F, 0x01, 0xCF], Rule::Undefined),
    plain("ENCLV", &[0x0F, 0x01, 0xC0], Rule::Undefined),
    plain("PCONFIG", &[0x0F, 0x01, 0xC5], Rule::Undefined),
    plain("RDPRU", &[0x0F, 0x01, 0xFD], Rule::Undefined),
    plain("INVLPGB", &[0x0F, 0x01, 0xFE], Rule::Undefined),
    plain("TLBSYNC", &[0x0F, 0x01, 0xFF], Rule::Undefined),
    plain("UD2", &[0x0F, 0x0B], Rule::Undefined),
];
