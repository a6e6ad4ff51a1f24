// SPDX-License-Identifier: MIT OR Apache-2.0
//! Forms of instructions that exit, fault or are rare: opcode, operand, immediate (Intel SDM
//! volume 2, appendix A; AMD APM volume 3, appendix A).

/// What follows the opcode.
#[derive(Clone, Copy)]
pub enum Operand {
    /// Nothing.
    None,
    /// A ModRM byte of any kind.
    Any,
    /// A ModRM byte that names memory.
    Memory,
    /// A ModRM byte that names registers.
    Register,
    /// A ModRM byte of any kind with this in its middle.
    Group(u8),
    /// One that names memory.
    GroupMemory(u8),
}

/// What follows that.
#[derive(Clone, Copy)]
pub enum Immediate {
    /// Nothing.
    None,
    /// A byte.
    Byte,
    /// A word.
    Word,
    /// Four bytes: an address.
    Address,
    /// An offset of four bytes and a selector.
    Far,
    /// A port.
    Port,
}

/// A register that steers the instruction, which is loaded before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// None.
    None,
    /// ECX holds the number of an MSR.
    Msr,
    /// DX holds a port.
    Port,
    /// AX holds a selector.
    Selector,
    /// ECX holds a small number.
    Small,
    /// EAX holds a leaf of CPUID.
    Leaf,
}

/// A form.
#[derive(Clone, Copy)]
pub struct Form {
    pub opcode: &'static [u8],
    pub operand: Operand,
    pub immediate: Immediate,
    pub steer: Steer,
}

const fn plain(opcode: &'static [u8]) -> Form {
    Form { opcode, operand: Operand::None, immediate: Immediate::None, steer: Steer::None }
}

const fn with(opcode: &'static [u8], operand: Operand) -> Form {
    Form { operand, ..plain(opcode) }
}

const fn followed(opcode: &'static [u8], immediate: Immediate) -> Form {
    Form { immediate, ..plain(opcode) }
}

const fn steered(opcode: &'static [u8], steer: Steer) -> Form {
    Form { steer, ..plain(opcode) }
}

use Immediate::{Address, Byte, Far, Port, Word};
use Operand::{Any, Group, GroupMemory, Memory, Register};

/// All forms.
pub const FORMS: &[Form] = &[
    // What exits, or is of privilege level 0.
    plain(&[0xF4]),
    steered(&[0x0F, 0xA2], Steer::Leaf),
    steered(&[0x0F, 0xA2], Steer::Leaf),
    plain(&[0x0F, 0x31]),
    plain(&[0x0F, 0x01, 0xF9]),
    steered(&[0x0F, 0x33], Steer::Small),
    plain(&[0x0F, 0x08]),
    plain(&[0x0F, 0x09]),
    steered(&[0x0F, 0x32], Steer::Msr),
    steered(&[0x0F, 0x32], Steer::Msr),
    steered(&[0x0F, 0x30], Steer::Msr),
    steered(&[0x0F, 0x30], Steer::Msr),
    with(&[0x0F, 0x20], Register),
    with(&[0x0F, 0x21], Register),
    with(&[0x0F, 0x22], Register),
    with(&[0x0F, 0x22], Register),
    with(&[0x0F, 0x23], Register),
    plain(&[0x0F, 0x06]),
    with(&[0x0F, 0x00], Any),
    with(&[0x0F, 0x00], Group(0)),
    Form { steer: Steer::Selector, ..with(&[0x0F, 0x00], Group(2)) },
    Form { steer: Steer::Selector, ..with(&[0x0F, 0x00], Group(3)) },
    with(&[0x0F, 0x01], Any),
    with(&[0x0F, 0x01], GroupMemory(0)),
    with(&[0x0F, 0x01], GroupMemory(1)),
    with(&[0x0F, 0x01], Group(4)),
    with(&[0x0F, 0x01], Group(6)),
    with(&[0x0F, 0x01], GroupMemory(7)),
    with(&[0x0F, 0x01], GroupMemory(7)),
    plain(&[0x0F, 0x01, 0xF8]),
    steered(&[0x0F, 0x01, 0xD0], Steer::Small),
    steered(&[0x0F, 0x01, 0xD1], Steer::Small),
    plain(&[0x0F, 0x01, 0xC8]),
    plain(&[0x0F, 0x01, 0xC9]),
    plain(&[0x0F, 0x01, 0xCA]),
    plain(&[0x0F, 0x01, 0xCB]),
    plain(&[0x0F, 0xAA]),
    plain(&[0xF3, 0x90]),
    with(&[0x66, 0x0F, 0x38, 0x82], Memory),
    // Virtualization.
    plain(&[0x0F, 0x01, 0xC1]),
    plain(&[0x0F, 0x01, 0xC2]),
    plain(&[0x0F, 0x01, 0xC3]),
    plain(&[0x0F, 0x01, 0xC4]),
    plain(&[0x0F, 0x01, 0xD4]),
    plain(&[0x0F, 0x01, 0xD8]),
    plain(&[0x0F, 0x01, 0xD9]),
    plain(&[0x0F, 0x01, 0xDA]),
    plain(&[0x0F, 0x01, 0xDB]),
    plain(&[0x0F, 0x01, 0xDC]),
    plain(&[0x0F, 0x01, 0xDD]),
    plain(&[0x0F, 0x01, 0xDE]),
    plain(&[0x0F, 0x01, 0xDF]),
    with(&[0x0F, 0x78], Any),
    with(&[0x0F, 0x79], Any),
    with(&[0x0F, 0xC7], GroupMemory(6)),
    with(&[0x66, 0x0F, 0xC7], GroupMemory(6)),
    with(&[0xF3, 0x0F, 0xC7], GroupMemory(6)),
    with(&[0x66, 0x0F, 0x38, 0x80], Memory),
    with(&[0x66, 0x0F, 0x38, 0x81], Memory),
    // Ports.
    followed(&[0xE4], Port),
    followed(&[0xE5], Port),
    followed(&[0xE6], Port),
    followed(&[0xE7], Port),
    steered(&[0xEC], Steer::Port),
    steered(&[0xED], Steer::Port),
    steered(&[0xEE], Steer::Port),
    steered(&[0xEF], Steer::Port),
    steered(&[0x6C], Steer::Port),
    steered(&[0x6D], Steer::Port),
    steered(&[0x6E], Steer::Port),
    steered(&[0x6F], Steer::Port),
    steered(&[0xF3, 0x6C], Steer::Port),
    steered(&[0xF3, 0x6D], Steer::Port),
    steered(&[0xF3, 0x6E], Steer::Port),
    // Events, flags and far transfers.
    followed(&[0xCD], Byte),
    plain(&[0xCC]),
    plain(&[0xCE]),
    plain(&[0xF1]),
    plain(&[0xCF]),
    plain(&[0x48, 0xCF]),
    plain(&[0xCB]),
    followed(&[0xCA], Word),
    followed(&[0x9A], Far),
    followed(&[0xEA], Far),
    with(&[0xFF], GroupMemory(3)),
    with(&[0xFF], GroupMemory(5)),
    with(&[0xFF], Any),
    plain(&[0x0F, 0x05]),
    plain(&[0x0F, 0x07]),
    plain(&[0x48, 0x0F, 0x07]),
    plain(&[0x0F, 0x34]),
    plain(&[0x0F, 0x35]),
    plain(&[0x9C]),
    plain(&[0x9D]),
    plain(&[0x9D]),
    plain(&[0xFA]),
    plain(&[0xFB]),
    plain(&[0xFB]),
    with(&[0x62], Any),
    plain(&[0x0F, 0x0B]),
    // Segments.
    Form { steer: Steer::Selector, ..with(&[0x8E], Any) },
    Form { steer: Steer::Selector, ..with(&[0x8E], Any) },
    with(&[0x8C], Any),
    plain(&[0x17]),
    plain(&[0x07]),
    plain(&[0x0F, 0xA1]),
    plain(&[0x0F, 0xA9]),
    with(&[0xC4], Memory),
    with(&[0xC5], Memory),
    with(&[0x0F, 0xB2], Memory),
    Form { steer: Steer::Selector, ..with(&[0x0F, 0x02], Any) },
    Form { steer: Steer::Selector, ..with(&[0x0F, 0x03], Any) },
    with(&[0x63], Any),
    // Memory, which may be a device.
    with(&[0x88], Memory),
    with(&[0x89], Memory),
    with(&[0x8A], Memory),
    with(&[0x8B], Memory),
    with(&[0xC6], GroupMemory(0)),
    with(&[0x00], Memory),
    with(&[0x01], Memory),
    with(&[0x09], Memory),
    with(&[0x21], Memory),
    with(&[0x31], Memory),
    with(&[0x39], Memory),
    with(&[0x85], Memory),
    with(&[0x87], Memory),
    with(&[0xF0, 0x0F, 0xB1], Memory),
    with(&[0xF0, 0x0F, 0xC1], Memory),
    with(&[0xF0, 0x0F, 0xC7], GroupMemory(1)),
    with(&[0x48, 0x0F, 0xC7], GroupMemory(1)),
    with(&[0xFE], Memory),
    with(&[0xF6], Memory),
    with(&[0xF7], Memory),
    with(&[0xD1], Memory),
    Form { immediate: Byte, ..with(&[0xC1], Memory) },
    Form { immediate: Byte, ..with(&[0x83], Memory) },
    Form { immediate: Byte, ..with(&[0x80], Memory) },
    Form { immediate: Address, ..with(&[0x81], Memory) },
    Form { immediate: Address, ..with(&[0x69], Memory) },
    with(&[0x8F], GroupMemory(0)),
    with(&[0xFF], GroupMemory(6)),
    with(&[0x0F, 0xB6], Memory),
    with(&[0x0F, 0xB7], Memory),
    with(&[0x0F, 0xBE], Memory),
    with(&[0x0F, 0xA3], Memory),
    with(&[0x0F, 0xAB], Memory),
    with(&[0x0F, 0xB3], Memory),
    Form { immediate: Byte, ..with(&[0x0F, 0xBA], Memory) },
    Form { immediate: Byte, ..with(&[0x0F, 0xA4], Memory) },
    with(&[0x0F, 0xBC], Memory),
    with(&[0x0F, 0x40], Memory),
    with(&[0x0F, 0x90], Memory),
    with(&[0x0F, 0xC3], Memory),
    with(&[0x0F, 0x38, 0xF0], Memory),
    with(&[0x0F, 0x38, 0xF1], Memory),
    followed(&[0xA0], Address),
    followed(&[0xA1], Address),
    followed(&[0xA2], Address),
    followed(&[0xA3], Address),
    plain(&[0xD7]),
    plain(&[0xA4]),
    plain(&[0xA5]),
    plain(&[0xA6]),
    plain(&[0xAA]),
    plain(&[0xAB]),
    plain(&[0xAC]),
    plain(&[0xAE]),
    plain(&[0xF3, 0xA4]),
    plain(&[0xF3, 0xA5]),
    plain(&[0xF3, 0x48, 0xA5]),
    plain(&[0xF3, 0xA6]),
    plain(&[0xF3, 0xAA]),
    plain(&[0xF3, 0xAB]),
    plain(&[0xF2, 0xAE]),
    plain(&[0x60]),
    plain(&[0x61]),
    plain(&[0xC9]),
    Form { immediate: Byte, ..followed(&[0xC8], Word) },
    // Floating point, vectors and their state.
    plain(&[0x9B]),
    plain(&[0xDB, 0xE3]),
    with(&[0xD9], Any),
    with(&[0xDB], Any),
    with(&[0xDD], Any),
    with(&[0xDF], Any),
    with(&[0x0F, 0xAE], Any),
    with(&[0x48, 0x0F, 0xAE], Memory),
    with(&[0x0F, 0xC7], Memory),
    with(&[0x0F, 0x28], Memory),
    with(&[0x0F, 0x10], Memory),
    with(&[0x66, 0x0F, 0x6F], Memory),
    with(&[0xF3, 0x0F, 0x6F], Memory),
    with(&[0x66, 0x0F, 0x7F], Memory),
    with(&[0x66, 0x0F, 0xE7], Memory),
    with(&[0x0F, 0xE7], Memory),
    with(&[0x66, 0x0F, 0xF7], Register),
    with(&[0xC5, 0xFC, 0x10], Memory),
    with(&[0xF3, 0x0F, 0xAE], Any),
    with(&[0x0F, 0x0D], Memory),
    with(&[0x0F, 0x18], Memory),
    with(&[0x0F, 0x1F], Memory),
];

/// Prefixes.
pub const PREFIXES: &[u8] = &[0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65];
