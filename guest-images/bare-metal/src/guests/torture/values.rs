// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that something may go wrong with.

use super::random::Random;
use crate::rt::paging;

/// Where the random instructions are, in every mode.
pub const CODE: u64 = 0x9000;
/// The end of what is there for them.
pub const CODE_END: u64 = 0xA000;
/// Memory that they may do with what they like, behind the code.
pub const DATA: u64 = 0xA000;
/// Its end, and below it the stack of random instructions.
pub const DATA_END: u64 = 0xF000;

/// Addresses of memory and devices, and of neither; below 4 GiB, so that all modes reach them.
const ADDRESSES: &[u64] = &[
    DATA,
    DATA + 0x100,
    DATA + 0xFF8,
    DATA + 0xFFD,
    DATA + 0x1FFC,
    CODE,
    CODE + 0xFFC,
    0,
    0x400,
    0x8_0000,
    0x9_FFFC,
    0xA_0000,
    0xB_8000,
    0xC_0000,
    0xE_0000,
    0xF_FFF0,
    0xF_FFFC,
    0x10_FFF0,
    // Behind the end of the memory of 16 MiB.
    0x00FF_FFF8,
    0x00FF_FFFD,
    0x0100_0000,
    0x4000_0000,
    0x8000_0000,
    0xB000_0000,
    0xE000_0000,
    paging::UNOWNED,
    0xFEBF_FFFC,
    // I/O APIC, HPET, local APIC and the pages beside them.
    0xFEBF_FFFE,
    0xFEC0_0000,
    0xFEC0_0010,
    0xFEC0_0040,
    0xFEC0_0FFC,
    0xFED0_0000,
    0xFED0_0010,
    0xFED0_0020,
    0xFED0_00F0,
    0xFED0_0100,
    0xFED0_0108,
    0xFED0_03FC,
    0xFEDF_FFFC,
    0xFEE0_0000,
    0xFEE0_0020,
    0xFEE0_0080,
    0xFEE0_00B0,
    0xFEE0_00F0,
    0xFEE0_0280,
    0xFEE0_0300,
    0xFEE0_0310,
    0xFEE0_0320,
    0xFEE0_0380,
    0xFEE0_0FFC,
    0xFEE0_1000,
    0xFFFF_0000,
    0xFFFF_FFF0,
    0xFFFF_FFFC,
    0xFFFF_FFFF,
];

/// Addresses that only 64 bits can name.
const WIDE: &[u64] = &[
    paging::WINDOW,
    paging::WINDOW + 0xFFC,
    paging::WINDOW + 0x1F_FFFC,
    0x1_0000_0000,
    0x10_0000_0000,
    0x7FFF_FFFF_FFF8,
    0x7FFF_FFFF_FFFF,
    0x8000_0000_0000,
    0xFFFF_7FFF_FFFF_FFFF,
    0xFFFF_8000_0000_0000,
    0xFFFF_FFFF_FFFF_FFF8,
    0xFFFF_FFFF_FFFF_FFFF,
];

const PORTS: &[u16] = &[
    0x00, 0x0D, 0x20, 0x21, 0x40, 0x42, 0x43, 0x61, 0x70, 0x71, 0x80, 0x87, 0xA0, 0xA1, 0xED,
    0x170, 0x1F0, 0x278, 0x2F8, 0x3C0, 0x3D4, 0x3DA, 0x3F2, 0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC,
    0x3FD, 0x3FE, 0x3FF, 0x4D0, 0x4D1, 0x510, 0x608, 0xCF8, 0xCFA, 0xCFC, 0xCFD, 0xCFE, 0xCFF,
    0xE9, 0xFFFC, 0xFFFF,
];

/// Ports with which a machine is reset or switched off.
const LAST_PORTS: &[u16] = &[0x64, 0x92, 0xB2, 0xF4, 0x600, 0x604, 0xCF9];

const MSRS: &[u32] = &[
    0x10,
    0x17,
    0x1B,
    0x3A,
    0x3B,
    0x48,
    0x49,
    0x79,
    0x8B,
    0xFE,
    0x10A,
    0x10B,
    0x174,
    0x175,
    0x176,
    0x179,
    0x17A,
    0x17B,
    0x186,
    0x198,
    0x1A0,
    0x1D9,
    0x1DD,
    0x1DE,
    0x200,
    0x201,
    0x250,
    0x277,
    0x2FF,
    0x38F,
    0x400,
    0x401,
    0x402,
    0x480,
    0x48B,
    0x491,
    0x600,
    0x6A0,
    0x6A2,
    0x6E0,
    0x800,
    0x802,
    0x803,
    0x808,
    0x80B,
    0x80F,
    0x828,
    0x830,
    0x832,
    0x838,
    0x839,
    0x83E,
    0x83F,
    0xDA0,
    0x4000_0000,
    0x4000_0001,
    0x4B56_4D00,
    0x4B56_4D01,
    0x4B56_4D02,
    0x4B56_4D03,
    0x4B56_4D04,
    0xC000_0080,
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084,
    0xC000_0100,
    0xC000_0101,
    0xC000_0102,
    0xC000_0103,
    0xC000_0104,
    0xC001_0010,
    0xC001_0015,
    0xC001_001A,
    0xC001_0055,
    0xC001_0114,
    0xC001_0117,
    0xC001_0118,
    0xC001_0119,
    0xC001_1029,
];

/// Selectors of the descriptors there are, of those there are not, and with every privilege.
const SELECTORS: &[u16] = &[
    0, 3, 0x08, 0x0B, 0x10, 0x13, 0x18, 0x1B, 0x20, 0x23, 0x28, 0x2B, 0x30, 0x33, 0x38, 0x3B, 0x40,
    0x43, 0x48, 0x4B, 0x50, 0x58, 0x60, 0x68, 0x6B, 0x70, 0x78, 0x7F, 0x80, 0x04, 0x07, 0xFFF8,
    0xFFFC, 0xFFFF,
];

/// An address, or what looks like one.
pub fn address(random: &mut Random) -> u64 {
    match random.below(8) {
        0..=2 => DATA + random.below(DATA_END - DATA),
        3..=5 => random.pick(ADDRESSES, DATA),
        6 => random.pick(WIDE, DATA),
        _ => random.magnitude(),
    }
}

/// An address that has 32 bits.
pub fn low_address(random: &mut Random) -> u32 {
    let offset = random.below(16).saturating_sub(8);
    random.pick(ADDRESSES, DATA).wrapping_add(offset) as u32
}

/// What a general-purpose register begins with.
pub fn register(random: &mut Random) -> u64 {
    match random.below(8) {
        0..=3 => address(random),
        4 => random.below(16),
        5 => port(random).into(),
        6 => selector(random).into(),
        _ => random.magnitude(),
    }
}

/// An I/O port.
pub fn port(random: &mut Random) -> u16 {
    match random.below(32) {
        0 => random.pick(LAST_PORTS, 0x80),
        1..=24 => random.pick(PORTS, 0x80),
        _ => random.next() as u16,
    }
}

/// A model-specific register.
pub fn msr(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => random.next() as u32 & 0x1FFF,
        1 => 0xC000_0000 | random.next() as u32 & 0x1_1FFF,
        2 => 0x800 | random.next() as u32 & 0x3F,
        _ => random.pick(MSRS, 0x10),
    }
}

/// A segment selector.
pub fn selector(random: &mut Random) -> u16 {
    match random.below(8) {
        0 => random.next() as u16,
        _ => random.pick(SELECTORS, 0),
    }
}

/// A descriptor with its base and limit anywhere and a type of every kind.
pub fn descriptor(random: &mut Random) -> u64 {
    let (base, limit) = (address(random), random.magnitude() & 0xF_FFFF);
    let access = random.next() & 0xFF | if random.one_in(8) { 0 } else { 0x80 };
    let flags = random.next() & 0xF;
    limit & 0xFFFF
        | (base & 0xFF_FFFF) << 16
        | access << 40
        | (limit >> 16) << 48
        | flags << 52
        | (base >> 24 & 0xFF) << 56
}
