// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instruction forms and their encoding.

use super::processor::Registers;
use crate::emulate::tests::random::Random;
use crate::state::Gpr;
use crate::state::rflags::{AF, CF, OF, PF, SF, ZF};

/// What follows the operand bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Immediate {
    None,
    Byte,
    /// 2 or 4 bytes by operand size.
    Operand,
    /// An 8-byte address (MOV with a memory offset).
    Address,
}

/// Where the count of a shift comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ShiftCount {
    One,
    Cl,
    Immediate,
}

/// An instruction form with all its operand sizes.
#[derive(Clone)]
pub struct Form {
    pub opcode: Vec<u8>,
    /// Opcode extension in the reg field of ModRM; else a register is there.
    digit: Option<u8>,
    sizes: &'static [u8],
    prefix: Option<u8>,
    immediate: Immediate,
    has_modrm: bool,
    memory_only: bool,
    lockable: bool,
    undefined: u64,
    shift: Option<ShiftCount>,
    /// A bit string addressed by a register.
    pub bit_string: bool,
    pub string: bool,
    pub compares: bool,
    pub aligned: bool,
    pub may_fault: bool,
    /// BSF or BSR.
    pub scans: bool,
}

const BYTE: &[u8] = &[1];
const WIDE: &[u8] = &[2, 4, 8];

impl Form {
    fn new(opcode: &[u8], sizes: &'static [u8]) -> Self {
        Self {
            opcode: opcode.to_vec(),
            digit: None,
            sizes,
            prefix: None,
            immediate: Immediate::None,
            has_modrm: true,
            memory_only: false,
            lockable: false,
            undefined: 0,
            shift: None,
            bit_string: false,
            string: false,
            compares: false,
            aligned: false,
            may_fault: false,
            scans: false,
        }
    }

    fn digit(self, digit: u8) -> Self {
        Self { digit: Some(digit), ..self }
    }
    fn prefix(self, prefix: u8) -> Self {
        Self { prefix: Some(prefix), ..self }
    }
    fn imm8(self) -> Self {
        Self { immediate: Immediate::Byte, ..self }
    }
    fn imm(self) -> Self {
        let byte = self.sizes == BYTE;
        let immediate = if byte { Immediate::Byte } else { Immediate::Operand };
        Self { immediate, ..self }
    }
    fn lockable(self) -> Self {
        Self { lockable: true, ..self }
    }
    fn undefined(self, undefined: u64) -> Self {
        Self { undefined, ..self }
    }
    fn memory_only(self) -> Self {
        Self { memory_only: true, ..self }
    }
}

/// How a case addresses its operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addressing {
    Register(u8),
    /// `[rbx + displacement]`.
    Base(i32),
    /// `[rbx + r9 * scale + displacement]`.
    BaseIndex(u8, i8),
    /// This address, RIP-relative.
    RipRelative(u64),
    None,
}

/// One instruction.
pub struct Case {
    pub code: Vec<u8>,
    pub size: u8,
    /// Encoding of the register operand.
    pub register: u8,
    addressing: Addressing,
    immediate: u64,
}

impl Form {
    /// An instruction of this form.
    pub fn case(&self, random: &mut Random, arena: u64, start: &Registers) -> Case {
        let size = *random.pick(self.sizes);
        let mut register = random.below(16) as u8;
        // A bit number must not be in a register that addresses the operand.
        while self.bit_string && [Gpr::Rbx as u8, Gpr::R9 as u8].contains(&register) {
            register = random.below(16) as u8;
        }
        let addressing = match random.below(5) {
            _ if !self.has_modrm => Addressing::None,
            0 if !self.memory_only => Addressing::Register(random.below(16) as u8),
            1 => Addressing::BaseIndex(random.below(4) as u8, random.bits() as i8),
            2 if !self.aligned => Addressing::RipRelative(arena + 0x1800 + random.below(0x800)),
            _ if self.aligned => Addressing::Base(random.below(8) as i32 * 16),
            _ => Addressing::Base(random.below(128) as i32 - 64),
        };
        let immediate = match self.immediate {
            Immediate::Address => arena + 0x1800 + random.below(0x1000),
            _ => random.operand(),
        };
        let mut case = Case { code: Vec::new(), size, register, addressing, immediate };
        let lock = self.lockable && case.memory_operand(start).is_some() && random.chance(2);
        case.encode(self, random, lock, arena);
        case
    }
}

impl Case {
    fn encode(&mut self, form: &Form, random: &mut Random, lock: bool, arena: u64) {
        let code = &mut self.code;
        code.extend(lock.then_some(0xF0));
        code.extend((self.size == 2).then_some(0x66));
        code.extend(form.prefix);
        let field = form.digit.unwrap_or(self.register);
        let mut rex = (field >> 3) << 2;
        if self.size == 8 {
            rex |= 8;
        }
        match self.addressing {
            Addressing::Register(register) => rex |= register >> 3,
            Addressing::BaseIndex(..) => rex |= 2,
            _ => {}
        }
        // Without REX, byte registers 4 to 7 are the high bytes.
        if rex != 0 || random.chance(3) {
            code.push(0x40 | rex);
        }
        code.extend(&form.opcode);
        let field = (field & 7) << 3;
        let immediate_length = match form.immediate {
            Immediate::None => 0,
            Immediate::Byte => 1,
            Immediate::Operand => usize::from(self.size.min(4)),
            Immediate::Address => 8,
        };
        match self.addressing {
            Addressing::Register(register) => code.push(0xC0 | field | (register & 7)),
            Addressing::Base(displacement) => {
                code.push(0x83 | field);
                code.extend(displacement.to_le_bytes());
            }
            Addressing::BaseIndex(scale, displacement) => {
                code.extend([0x44 | field, scale << 6 | 1 << 3 | 3, displacement as u8]);
            }
            Addressing::RipRelative(target) => {
                code.push(5 | field);
                let end = arena + (code.len() + 4 + immediate_length) as u64;
                code.extend((target.wrapping_sub(end) as u32).to_le_bytes());
            }
            Addressing::None => {}
        }
        code.extend(&self.immediate.to_le_bytes()[..immediate_length]);
    }

    /// Address of the memory operand, if there is one.
    pub fn memory_operand(&self, registers: &Registers) -> Option<u64> {
        let base = registers.gprs[Gpr::Rbx as usize];
        let index = registers.gprs[Gpr::R9 as usize];
        match self.addressing {
            Addressing::Base(displacement) => Some(base.wrapping_add_signed(displacement.into())),
            Addressing::BaseIndex(scale, displacement) => {
                Some((base + (index << scale)).wrapping_add_signed(displacement.into()))
            }
            Addressing::RipRelative(target) => Some(target),
            Addressing::Register(_) | Addressing::None => None,
        }
    }

    /// Masked count of a shift.
    fn count(&self, form: &Form, start: &Registers) -> Option<u8> {
        let count = match form.shift? {
            ShiftCount::One => 1,
            ShiftCount::Cl => start.gprs[Gpr::Rcx as usize] as u8,
            ShiftCount::Immediate => self.immediate as u8,
        };
        Some(count & if self.size == 8 { 63 } else { 31 })
    }

    /// True if processors differ in the result: double shifts by more than the operand size,
    /// and the upper half of the 32-bit register a CMPXCHG leaves unchanged.
    pub fn is_undefined(&self, form: &Form, start: &Registers) -> bool {
        if form.compares && self.size == 4 && matches!(self.addressing, Addressing::Register(_)) {
            return true;
        }
        let double = form.digit.is_none();
        double && self.count(form, start).is_some_and(|count| count > self.size * 8)
    }

    /// Status flags the architecture leaves undefined.
    pub fn undefined_flags(&self, form: &Form, start: &Registers) -> u64 {
        let Some(count) = self.count(form, start) else { return form.undefined };
        if count == 0 {
            return 0;
        }
        let rotate = form.digit.is_some_and(|digit| digit < 4);
        let arithmetic = form.digit == Some(7);
        let mut undefined = if count == 1 { 0 } else { OF };
        if !rotate {
            undefined |= AF;
            if count >= self.size * 8 && !arithmetic {
                undefined |= CF;
            }
        }
        undefined
    }
}

fn arithmetic(forms: &mut Vec<Form>) {
    for (operation, opcode) in (0..8).zip((0..).step_by(8)) {
        let undefined = if [1, 4, 6].contains(&operation) { AF } else { 0 };
        let form = |opcode: u8, sizes| Form::new(&[opcode], sizes).undefined(undefined);
        let lock = |form: Form| if operation == 7 { form } else { form.lockable() };
        forms.push(lock(form(opcode, BYTE)));
        forms.push(lock(form(opcode + 1, WIDE)));
        forms.push(form(opcode + 2, BYTE));
        forms.push(form(opcode + 3, WIDE));
        forms.push(lock(form(0x80, BYTE).digit(operation).imm8()));
        forms.push(lock(form(0x81, WIDE).digit(operation).imm()));
        forms.push(lock(form(0x83, WIDE).digit(operation).imm8()));
    }
    for (opcode, sizes) in [(0xF6, BYTE), (0xF7, WIDE)] {
        let form = |digit| Form::new(&[opcode], sizes).digit(digit);
        forms.push(form(0).imm().undefined(AF));
        forms.push(form(2).lockable());
        forms.push(form(3).lockable());
        forms.push(form(4).undefined(SF | ZF | AF | PF));
        forms.push(form(5).undefined(SF | ZF | AF | PF));
        for digit in [6, 7] {
            let all = CF | PF | AF | ZF | SF | OF;
            forms.push(Form { may_fault: true, ..form(digit).undefined(all) });
        }
    }
    for (opcode, sizes) in [(0x84, BYTE), (0x85, WIDE)] {
        forms.push(Form::new(&[opcode], sizes).undefined(AF));
    }
    for (opcode, sizes) in [(0xFE, BYTE), (0xFF, WIDE)] {
        for digit in [0, 1] {
            forms.push(Form::new(&[opcode], sizes).digit(digit).lockable());
        }
    }
    let product = SF | ZF | AF | PF;
    forms.push(Form::new(&[0x0F, 0xAF], WIDE).undefined(product));
    forms.push(Form::new(&[0x69], WIDE).imm().undefined(product));
    forms.push(Form::new(&[0x6B], WIDE).imm8().undefined(product));
}

fn shifts(forms: &mut Vec<Form>) {
    let sources = [
        (0xC0, BYTE, ShiftCount::Immediate),
        (0xC1, WIDE, ShiftCount::Immediate),
        (0xD0, BYTE, ShiftCount::One),
        (0xD1, WIDE, ShiftCount::One),
        (0xD2, BYTE, ShiftCount::Cl),
        (0xD3, WIDE, ShiftCount::Cl),
    ];
    for (opcode, sizes, count) in sources {
        for digit in 0..8 {
            let form = Form::new(&[opcode], sizes).digit(digit);
            let form = if count == ShiftCount::Immediate { form.imm8() } else { form };
            forms.push(Form { shift: Some(count), ..form });
        }
    }
    for opcode in [0xA4, 0xAC] {
        let form = Form::new(&[0x0F, opcode], WIDE).imm8();
        forms.push(Form { shift: Some(ShiftCount::Immediate), ..form });
        let form = Form::new(&[0x0F, opcode + 1], WIDE);
        forms.push(Form { shift: Some(ShiftCount::Cl), ..form });
    }
}

fn moves(forms: &mut Vec<Form>) {
    for (byte, wide) in [(0x88, 0x89), (0x8A, 0x8B)] {
        forms.push(Form::new(&[byte], BYTE));
        forms.push(Form::new(&[wide], WIDE));
    }
    forms.push(Form::new(&[0xC6], BYTE).digit(0).imm());
    forms.push(Form::new(&[0xC7], WIDE).digit(0).imm());
    for opcode in 0xA0..=0xA3 {
        let sizes = if opcode & 1 == 0 { BYTE } else { WIDE };
        let form = Form::new(&[opcode], sizes);
        forms.push(Form { has_modrm: false, immediate: Immediate::Address, ..form });
    }
    for opcode in [0xB6, 0xB7, 0xBE, 0xBF] {
        forms.push(Form::new(&[0x0F, opcode], WIDE));
    }
    forms.push(Form::new(&[0x63], WIDE));
    forms.push(Form::new(&[0x0F, 0xC3], &[4, 8]).memory_only());
    if is_x86_feature_detected!("movbe") {
        for opcode in [0xF0, 0xF1] {
            forms.push(Form::new(&[0x0F, 0x38, opcode], WIDE).memory_only());
        }
    }
    for condition in 0..16 {
        forms.push(Form::new(&[0x0F, 0x90 | condition], BYTE).digit(0));
        forms.push(Form::new(&[0x0F, 0x40 | condition], WIDE));
    }
    forms.push(Form::new(&[0xFF], &[2, 8]).digit(6));
    forms.push(Form::new(&[0x8F], &[2, 8]).digit(0));
}

fn conversions(forms: &mut Vec<Form>) {
    let plain = |opcode: &[u8], sizes| Form { has_modrm: false, ..Form::new(opcode, sizes) };
    forms.push(plain(&[0x98], WIDE));
    forms.push(plain(&[0x99], WIDE));
    for register in 0..8 {
        forms.push(plain(&[0x0F, 0xC8 | register], &[4, 8]));
    }
    forms.push(Form::new(&[0x8D], WIDE).memory_only());
    // XLAT, SAHF, LAHF, CMC, CLC, STC, CLD, STD.
    for opcode in [0xD7, 0x9E, 0x9F, 0xF5, 0xF8, 0xF9, 0xFC, 0xFD] {
        forms.push(plain(&[opcode], BYTE));
    }
    // PUSHF.
    forms.push(plain(&[0x9C], &[2, 8]));
}

fn exchanges(forms: &mut Vec<Form>) {
    for (opcode, sizes) in [(0, BYTE), (1, WIDE)] {
        forms.push(Form::new(&[0x86 + opcode], sizes).lockable());
        forms.push(Form::new(&[0x0F, 0xC0 + opcode], sizes).lockable());
        let compare = Form::new(&[0x0F, 0xB0 + opcode], sizes).lockable();
        forms.push(Form { compares: true, ..compare });
    }
    let pair = Form::new(&[0x0F, 0xC7], &[4]).digit(1).lockable().memory_only();
    forms.push(Form { compares: true, ..pair.clone() });
    if is_x86_feature_detected!("cmpxchg16b") {
        let pair = Form { sizes: &[8], compares: true, aligned: true, ..pair };
        forms.push(Form { may_fault: true, ..pair });
    }
}

fn bits(forms: &mut Vec<Form>) {
    let undefined = OF | SF | AF | PF;
    for (opcode, digit) in [(0xA3, 4), (0xAB, 5), (0xB3, 6), (0xBB, 7)] {
        let lock = |form: Form| if digit == 4 { form } else { form.lockable() };
        let register = Form { bit_string: true, ..Form::new(&[0x0F, opcode], WIDE) };
        forms.push(lock(register.undefined(undefined)));
        let immediate = Form::new(&[0x0F, 0xBA], WIDE).digit(digit).imm8();
        forms.push(lock(immediate.undefined(undefined)));
    }
    for opcode in [0xBC, 0xBD] {
        let scan = Form::new(&[0x0F, opcode], WIDE).undefined(CF | OF | SF | AF | PF);
        forms.push(Form { scans: true, ..scan });
    }
    if is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("lzcnt") {
        for opcode in [0xBC, 0xBD] {
            forms.push(Form::new(&[0x0F, opcode], WIDE).prefix(0xF3).undefined(undefined));
        }
    }
    if is_x86_feature_detected!("popcnt") {
        forms.push(Form::new(&[0x0F, 0xB8], WIDE).prefix(0xF3));
    }
}

fn strings(forms: &mut Vec<Form>) {
    for opcode in [0xA4, 0xA6, 0xAA, 0xAC, 0xAE] {
        for prefix in [None, Some(0xF2), Some(0xF3)] {
            for (opcode, sizes) in [(opcode, BYTE), (opcode + 1, WIDE)] {
                let form = Form::new(&[opcode], sizes);
                forms.push(Form { prefix, string: true, has_modrm: false, ..form });
            }
        }
    }
}

/// All forms this processor knows.
pub fn all() -> Vec<Form> {
    let mut forms = Vec::new();
    arithmetic(&mut forms);
    shifts(&mut forms);
    moves(&mut forms);
    conversions(&mut forms);
    exchanges(&mut forms);
    bits(&mut forms);
    strings(&mut forms);
    forms
}
