// SPDX-License-Identifier: MIT OR Apache-2.0
//! States that a guest may be in when it exits, and what lies in its memory then.

use crate::{
    GuestPhysAddr,
    emulate::tests::random::Random,
    memory::GuestMemory,
    mock_backend::Registers,
    state::{
        ControlRegisters, DescriptorTable, Segment, SegmentAttributes, SegmentRegister, cr0, cr4,
        dr6, dr7, efer, rflags,
    },
};

/// Where the code of sound states is.
pub const CODE: u64 = 0x1000;
/// Where 64-bit code sees guest-physical address zero.
const HIGH: u64 = 0xFFFF_8000_0000_0000;
/// Page tables of 64-bit code, and what else is random: descriptors, task states, other tables.
const TABLES: u64 = 0x8000;
const DATA: u64 = 0x2000;
const DATA_BYTES: u64 = 0x4000;

/// All of CR4 that any model shows; see `bug_classes/reserved_bits.rs`.
pub const LEGAL_CR4: u64 = 0x7FF | 1 << 11 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 21;
/// The same of EFER.
pub const LEGAL_EFER: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE | efer::FFXSR;

/// Fills the guest's memory with what its tables and descriptors may be. The interrupt vectors of
/// real mode lead to [`CODE`], behind which the guest halts.
pub fn fill(random: &mut Random, memory: &GuestMemory) {
    const HALT: u8 = 0xF4;
    let vector = ((CODE as u32) << 12).to_le_bytes();
    store(memory, 0, &vector.repeat(256));
    store(memory, CODE, &[HALT; 0x1000]);
    for at in (DATA..DATA + DATA_BYTES).step_by(8) {
        // Mostly present entries that lead back here, and descriptors with bases here.
        let value = match random.generate() % 4 {
            0 => random.generate(),
            1 => (DATA + random.generate() % DATA_BYTES) & !0xFFF | random.generate() & 0xFFF,
            2 => random.generate() & 0x00CF_FF00_0000_7FFF | DATA << 16 | 1 << 47,
            _ => 0,
        };
        store(memory, at, &value.to_le_bytes());
    }
}

/// Puts bytes into the guest's memory.
pub fn store(memory: &GuestMemory, at: u64, bytes: &[u8]) {
    memory.write(GuestPhysAddr::new(at), bytes).expect("memory of the guest");
}

/// Whether the state is one in which the instruction at [`CODE`] can be executed.
pub type Sound = bool;

/// Brings the guest into a state of any kind.
pub fn choose(random: &mut Random, registers: &mut Registers, memory: &GuestMemory) -> Sound {
    for gpr in &mut registers.gprs {
        *gpr = if random.chance(2) { DATA + random.below(DATA_BYTES) } else { random.operand() };
    }
    registers.in_shadow = random.chance(4);
    registers.nmi_blocked = random.chance(4);
    registers.dr6 = dr6::FIXED | random.bits() & dr6::CAUSES;
    registers.dr7 = dr7::FIXED | random.bits() & dr7::DEFINED;
    registers.xcr0 = 1;
    let table = |random: &mut Random| DescriptorTable {
        base: DATA + random.below(DATA_BYTES),
        limit: random.below(0x400) as u16,
    };
    (registers.gdtr, registers.idtr) = (table(random), table(random));
    task(registers);
    let kind = random.below(6);
    match kind {
        0 | 1 => enter_long_mode(registers, memory),
        2 => registers.enter_protected_mode(CODE),
        _ => enter_real_mode(registers),
    }
    let flags = random.bits() & 0x3F_7FD5 & !rflags::VM;
    registers.rflags = flags & !(rflags::TF * u64::from(random.chance(2))) | rflags::FIXED;
    match kind {
        4 => {
            // Virtual-8086 mode is real mode with protection on.
            registers.control.cr0 |= cr0::PE;
            registers.rflags |= rflags::VM;
            registers.cpl = 3;
        }
        5 => disturb(random, registers),
        _ => {}
    }
    kind < 4
}

fn data(kind: u8) -> SegmentAttributes {
    SegmentAttributes::new().with_kind(kind).with_code_or_data(true).with_present(true)
}

fn task(registers: &mut Registers) {
    let attributes = SegmentAttributes::new().with_present(true);
    let limit = 0x67;
    *registers.segment_mut(SegmentRegister::Tr) =
        Segment { selector: 0x28, limit, base: DATA, attributes: attributes.with_kind(11) };
    *registers.segment_mut(SegmentRegister::Ldtr) =
        Segment { selector: 0x30, limit, base: DATA, attributes: attributes.with_kind(2) };
}

fn enter_real_mode(registers: &mut Registers) {
    let segment = |kind| Segment { selector: 0, limit: 0xFFFF, base: 0, attributes: data(kind) };
    registers.segments[..6].fill(segment(3));
    *registers.segment_mut(SegmentRegister::Cs) = segment(11);
    registers.control = ControlRegisters { cr0: cr0::ET, ..ControlRegisters::default() };
    (registers.rip, registers.cpl) = (CODE, 0);
}

/// 64-bit code, above which the first 2 MiB are mapped.
fn enter_long_mode(registers: &mut Registers, memory: &GuestMemory) {
    const PRESENT: u64 = 1;
    const LARGE: u64 = 1 << 7;
    let entries = [
        (TABLES + 256 * 8, TABLES + 0x1000),
        (TABLES + 0x1000, TABLES + 0x2000),
        (TABLES + 0x2000, LARGE),
    ];
    for (at, entry) in entries {
        store(memory, at, &(entry | PRESENT).to_le_bytes());
    }
    registers.enter_protected_mode(CODE);
    registers.enter_long_mode(TABLES, HIGH + CODE);
}

/// A state with every bit that there is none of, tables anywhere and segments of any kind.
fn disturb(random: &mut Random, registers: &mut Registers) {
    let control = &mut registers.control;
    control.cr0 ^= *random.pick(&[0, cr0::PE | cr0::PG, cr0::PG, cr0::WP, 1 << 40]);
    control.cr4 ^= *random.pick(&[0, cr4::PAE, cr4::PSE, cr4::SMAP, cr4::LA57, cr4::OSXSAVE]);
    control.efer ^= *random.pick(&[0, efer::LMA, efer::LMA | efer::LME, efer::NXE]);
    if random.chance(4) {
        control.cr4 = random.bits();
        control.efer = random.bits();
    }
    control.cr3 = if random.chance(2) { DATA } else { random.operand() };
    registers.rip = if random.chance(2) { CODE } else { random.operand() };
    registers.rflags = random.bits();
    registers.cpl = random.below(4) as u8;
    for segment in &mut registers.segments {
        if random.chance(2) {
            segment.attributes = SegmentAttributes::from_bits(random.bits() as u32);
            segment.base = random.operand();
            segment.limit = random.operand() as u32;
            segment.selector = random.bits() as u16;
        }
    }
    registers.gdtr.base = random.operand();
    registers.idtr = DescriptorTable { base: random.operand(), limit: random.bits() as u16 };
    registers.dr6 = random.bits();
    registers.dr7 = random.bits();
}

/// No register holds a bit that it does not have.
pub fn is_legal(registers: &Registers) -> bool {
    let ControlRegisters { cr0, cr4, efer, .. } = registers.control;
    cr0 >> 32 == 0
        && cr4 & !LEGAL_CR4 == 0
        && efer & !LEGAL_EFER == 0
        && registers.dr6 & !(dr6::FIXED | dr6::CAUSES) == 0
        && registers.dr6 & dr6::FIXED == dr6::FIXED
        && registers.dr7 & !(dr7::FIXED | dr7::DEFINED) == 0
        && registers.dr7 & dr7::FIXED == dr7::FIXED
}

/// Where a guest in a sound state sees [`CODE`].
pub fn code_address(registers: &Registers) -> u64 {
    if is_64_bit_code(registers) { HIGH + CODE } else { CODE }
}

/// The guest executes 64-bit code.
pub fn is_64_bit_code(registers: &Registers) -> bool {
    let code = registers.segments[SegmentRegister::Cs as usize].attributes;
    registers.control.efer & efer::LMA != 0 && code.long()
}
