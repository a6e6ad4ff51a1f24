// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves between a device and a register or an immediate in 64-bit code, by a shorter way.
//!
//! Nearly all accesses to devices are such moves, and the CPU that left the guest at one has told
//! where in guest-physical memory it leads: neither the decoder nor a walk to the operand is
//! needed. What is not as simple, or not as it has to be, is left to the full emulator; the two
//! do the same with what this one does.

use super::bus::GuestBus;
use super::cpu::EmulatorCpu;
use super::outcome::{MAX_INSTRUCTION_LENGTH, Outcome};
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::address::{GuestPhysAddr, GuestVirtAddr, PAGE_SIZE};
use crate::state::{Gpr, SegmentRegister, cr0, rflags};

/// An access of the instruction at CS:RIP that the CPU has tried and for which it left the guest:
/// neither a fetch nor one to page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TriedAccess {
    /// First byte in guest-physical memory. The CPU has found that the guest may access it.
    pub address: GuestPhysAddr,
    /// A write, or one that reads before it writes.
    pub is_write: bool,
}

/// Executes `found`, which is the instruction at CS:RIP, if its operand can be what was tried. The
/// CPU is in 64-bit mode. `None`, and nothing has changed, if it is the full emulator's business.
#[inline]
pub fn emulate_move(
    cpu: &mut impl EmulatorCpu,
    bus: &mut impl GuestBus,
    tried: TriedAccess,
    found: &SimpleMove,
) -> Option<Outcome> {
    let flags = cpu.rflags();
    if flags & rflags::AC != 0 && cpu.cpl() == 3 && cpu.control().cr0 & cr0::AM != 0 {
        return None;
    }
    let next = cpu.rip().wrapping_add(u64::from(found.length));
    let width = found.width;
    let linear = GuestVirtAddr::new(found.operand.linear(cpu, next));
    let in_page = linear.offset_in(PAGE_SIZE);
    let is_operand = in_page == tried.address.offset_in(PAGE_SIZE)
        && in_page + width.length() <= PAGE_SIZE
        && linear.is_canonical();
    if !is_operand || found.transfer.is_store() != tried.is_write {
        return None;
    }
    match found.transfer {
        Transfer::Load(to) => {
            let value = bus.read(tried.address, width).ok()?;
            cpu.set_gpr(to.register, to.merged(cpu.gpr(to.register), value & width.mask()));
        }
        Transfer::Store(from) => {
            let value = from.extracted(cpu.gpr(from.register));
            bus.write(tried.address, width, value).ok()?;
        }
        Transfer::StoreImmediate(value) => {
            bus.write(tried.address, width, value & width.mask()).ok()?;
        }
    }
    cpu.set_rip(next);
    if flags & rflags::RF != 0 {
        cpu.set_rflags(flags & !rflags::RF);
    }
    cpu.set_interrupt_shadow(None);
    Some(Outcome::Done { debug_trap: flags & rflags::TF != 0 })
}

/// What a move does.
#[derive(Clone, Copy)]
enum Transfer {
    Load(GprPart),
    Store(GprPart),
    StoreImmediate(u64),
}

impl Transfer {
    fn is_store(&self) -> bool {
        !matches!(self, Self::Load(_))
    }
}

/// A memory operand.
#[derive(Clone, Copy)]
struct Operand {
    /// FS or GS, if the operand is there.
    segment: Option<SegmentRegister>,
    base: Base,
    /// With the binary logarithm of its scale.
    index: Option<(Gpr, u8)>,
    displacement: u64,
}

#[derive(Clone, Copy)]
enum Base {
    None,
    Register(Gpr),
    /// The instruction behind.
    Next,
}

impl Operand {
    #[inline(always)]
    fn linear(&self, cpu: &impl EmulatorCpu, next: u64) -> u64 {
        let base = match self.base {
            Base::None => 0,
            Base::Register(register) => cpu.gpr(register),
            Base::Next => next,
        };
        let mut linear = self.displacement.wrapping_add(base);
        if let Some((register, scale)) = self.index {
            linear = linear.wrapping_add(cpu.gpr(register) << scale);
        }
        if let Some(segment) = self.segment {
            linear = linear.wrapping_add(cpu.segment(segment).base);
        }
        linear
    }
}

/// A move between memory, addressed with 64 bits, and a register or an immediate.
#[derive(Clone, Copy)]
pub struct SimpleMove {
    length: u8,
    width: AccessWidth,
    operand: Operand,
    transfer: Transfer,
}

/// The bits of a REX prefix; without one none is set (AMD APM vol. 3, 1.2.7).
#[derive(Clone, Copy)]
struct Rex {
    prefix: Option<u8>,
}

impl Rex {
    fn has(self, bit: u8) -> bool {
        self.prefix.is_some_and(|prefix| prefix & bit != 0)
    }

    /// A register number of three bits, with the fourth from the prefix.
    fn register(self, number: u8, bit: u8) -> Gpr {
        Gpr::from_encoding(number & 7 | if self.has(bit) { 8 } else { 0 })
    }

    /// The register of a ModRM byte's field `reg`. Without a prefix bytes 4 to 7 are AH to BH.
    fn part(self, number: u8, size: AccessWidth) -> GprPart {
        let high_byte = size == AccessWidth::Byte && self.prefix.is_none() && number & 4 != 0;
        let number = if high_byte { number & 3 } else { number };
        GprPart { register: self.register(number, REX_R), size, high_byte }
    }
}

const REX_W: u8 = 8;
const REX_R: u8 = 4;
const REX_X: u8 = 2;
const REX_B: u8 = 1;

/// Bytes of an instruction that are still to be looked at.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A signed number of so many bytes, 1, 2 or 4, extended to 64 bits.
    #[inline(always)]
    fn signed(&mut self, width: AccessWidth) -> Option<u64> {
        let end = self.at + width.bytes();
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(match *bytes {
            [byte] => i64::from(byte as i8),
            [a, b] => i64::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => return None,
        } as u64)
    }
}

impl SimpleMove {
    /// The move that `code` begins with, if it is one; fewer bytes than it has are none.
    pub fn decode(code: &[u8]) -> Option<Self> {
        let bytes = code.get(..MAX_INSTRUCTION_LENGTH).unwrap_or(code);
        let mut reader = Reader { bytes, at: 0 };
        let (mut opcode, mut segment, mut narrow) = (reader.byte()?, None, false);
        loop {
            match opcode {
                0x66 => narrow = true,
                0x64 if segment.is_none() => segment = Some(SegmentRegister::Fs),
                0x65 if segment.is_none() => segment = Some(SegmentRegister::Gs),
                _ => break,
            }
            opcode = reader.byte()?;
        }
        let mut rex = Rex { prefix: None };
        if opcode & 0xF0 == 0x40 {
            rex.prefix = Some(opcode);
            opcode = reader.byte()?;
        }
        let full = match (rex.has(REX_W), narrow) {
            (true, _) => AccessWidth::Qword,
            (false, true) => AccessWidth::Word,
            (false, false) => AccessWidth::Dword,
        };
        let extended = opcode == 0x0F;
        if extended {
            opcode = reader.byte()?;
        }
        let modrm = reader.byte()?;
        let reg = modrm >> 3 & 7;
        let (width, kind) = match (extended, opcode) {
            (false, 0x88) => (AccessWidth::Byte, Kind::Store),
            (false, 0x89) => (full, Kind::Store),
            (false, 0x8A) => (AccessWidth::Byte, Kind::Load(AccessWidth::Byte)),
            (false, 0x8B) => (full, Kind::Load(full)),
            (false, 0xC6) if reg == 0 => (AccessWidth::Byte, Kind::StoreImmediate),
            (false, 0xC7) if reg == 0 => (full, Kind::StoreImmediate),
            (true, 0xB6) => (AccessWidth::Byte, Kind::Load(full)),
            (true, 0xB7) => (AccessWidth::Word, Kind::Load(full)),
            _ => return None,
        };
        let operand = Operand { segment, ..Operand::decode(&mut reader, modrm, rex)? };
        let transfer = match kind {
            Kind::Load(size) => Transfer::Load(rex.part(reg, size)),
            Kind::Store => Transfer::Store(rex.part(reg, width)),
            // Of 64 bits only the lower half is in the instruction.
            Kind::StoreImmediate => {
                Transfer::StoreImmediate(reader.signed(width.min(AccessWidth::Dword))?)
            }
        };
        Some(Self { length: reader.at as u8, width, operand, transfer })
    }

    /// Bytes of the instruction.
    pub const fn length(&self) -> u8 {
        self.length
    }
}

/// What an opcode does. A load may be of fewer bytes than the register that it fills has.
enum Kind {
    Load(AccessWidth),
    Store,
    StoreImmediate,
}

impl Operand {
    /// The operand that ModRM, SIB and displacement give (AMD APM vol. 3, 1.4).
    #[inline(always)]
    fn decode(reader: &mut Reader<'_>, modrm: u8, rex: Rex) -> Option<Self> {
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let (number, index) = if rm == 4 {
            let sib = reader.byte()?;
            let index = rex.register(sib >> 3, REX_X);
            (sib & 7, (index != Gpr::Rsp).then_some((index, sib >> 6)))
        } else {
            (rm, None)
        };
        let (base, displacement) = match mode {
            0 if number == 5 => {
                let base = if rm == 5 { Base::Next } else { Base::None };
                (base, reader.signed(AccessWidth::Dword)?)
            }
            0 => (Base::Register(rex.register(number, REX_B)), 0),
            1 => (Base::Register(rex.register(number, REX_B)), reader.signed(AccessWidth::Byte)?),
            2 => (Base::Register(rex.register(number, REX_B)), reader.signed(AccessWidth::Dword)?),
            _ => return None,
        };
        Some(Self { segment: None, base, index, displacement })
    }
}
