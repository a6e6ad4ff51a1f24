// SPDX-License-Identifier: MIT OR Apache-2.0
//! The short way of simple moves ends where the full emulator ends.

use std::cell::Cell;

use iced_x86::{Decoder, DecoderOptions, OpKind, Register};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::machine::{CODE, DEVICE, Event, Machine};
use crate::address::GuestPhysAddr;
use crate::emulate::register::{GprPart, segment_from_decoder};
use crate::emulate::{EmulatorCpu, Outcome, SimpleMove, TriedAccess, emulate_move};
use crate::state::{Gpr, InterruptShadow, SegmentRegister, cr0, rflags};

/// A linear page near the code that leads to the device, so that every form reaches it.
const WINDOW: u64 = 0x5000;

/// Opcodes of the moves that take the short way, and of others that must not.
const SHORT: [&[u8]; 8] =
    [&[0x88], &[0x89], &[0x8A], &[0x8B], &[0xC6], &[0xC7], &[0x0F, 0xB6], &[0x0F, 0xB7]];
const OTHERS: [&[u8]; 10] = [
    &[0x01],
    &[0x03],
    &[0x63],
    &[0x84],
    &[0x86],
    &[0x8E],
    &[0xA1],
    &[0x0F, 0xBE],
    &[0x0F, 0xC3],
    &[0xF6],
];
/// Prefixes of the short way, and others.
const PLAIN: [u8; 3] = [0x66, 0x64, 0x65];
const ODD: [u8; 6] = [0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x36];

/// One instruction and the state that it meets.
#[derive(Clone, Debug)]
struct Case {
    prefixes: Vec<u8>,
    rex: Option<u8>,
    opcode: &'static [u8],
    modrm: u8,
    sib: u8,
    rest: [u8; 8],
    gprs: [u64; 16],
    bases: [u64; 2],
    offset: u64,
    flags: u64,
    user: bool,
    alignment_mask: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let pick = |from: &'static [&'static [u8]]| prop::sample::select(from);
    let prefix =
        prop_oneof![9 => prop::sample::select(&PLAIN[..]), 1 => prop::sample::select(&ODD[..])];
    let code = (
        prop::collection::vec(prefix, 0..3),
        prop::option::of(0x40_u8..0x50),
        prop_oneof![9 => pick(&SHORT), 1 => pick(&OTHERS)],
        any::<(u8, u8, [u8; 8])>(),
    );
    let small = 0_u64..0x1000;
    let state = (
        prop::array::uniform16(prop_oneof![small.clone(), any::<u64>()]),
        prop::array::uniform2(prop_oneof![small.clone(), any::<u64>()]),
        prop_oneof![small, 0xFF0_u64..0x1000],
        any::<(u64, bool, bool)>(),
    );
    (code, state).prop_map(|((prefixes, rex, opcode, bytes), (gprs, bases, offset, rest))| {
        let (modrm, sib, rest_bytes) = bytes;
        let (flags, user, alignment_mask) = rest;
        // The field is a part of the opcode there.
        let modrm =
            if opcode[0] & 0xFE == 0xC6 && flags >> 40 & 7 != 0 { modrm & 0xC7 } else { modrm };
        Case {
            prefixes,
            rex,
            opcode,
            modrm,
            sib,
            rest: rest_bytes,
            gprs,
            bases,
            offset,
            flags: flags & (rflags::TF | rflags::RF | rflags::AC | 0xCD5) | rflags::FIXED,
            user,
            alignment_mask,
        }
    })
}

impl Case {
    /// Whether the short way has to be taken, if the operand is a device's and within a page.
    fn is_short(&self) -> bool {
        let segments = self.prefixes.iter().filter(|&&prefix| prefix & 0xFE == 0x64).count();
        let traps = self.flags & rflags::AC != 0 && self.alignment_mask && self.user;
        SHORT.contains(&self.opcode)
            && self.prefixes.iter().all(|prefix| PLAIN.contains(prefix))
            && segments < 2
            && !traps
    }

    fn code(&self) -> Vec<u8> {
        let mut code = self.prefixes.clone();
        code.extend(self.rex);
        code.extend(self.opcode);
        code.push(self.modrm);
        if self.modrm & 7 == 4 && self.modrm < 0xC0 {
            code.push(self.sib);
        }
        code.extend(self.rest);
        code.resize(15, 0x90);
        code
    }

    /// The machine, with the memory operand moved to the wanted place in the window if there is
    /// one.
    fn machine(&self) -> Machine {
        let mut machine = Machine::long(&[]);
        machine.bus.map(WINDOW, DEVICE, 7);
        machine.bus.map(WINDOW + 0x1000, DEVICE + 0x1000, 7);
        let cpu = &mut machine.cpu;
        cpu.gprs = self.gprs;
        cpu.segment_mut(SegmentRegister::Fs).base = self.bases[0];
        cpu.segment_mut(SegmentRegister::Gs).base = self.bases[1];
        cpu.rflags = self.flags;
        cpu.cpl = if self.user { 3 } else { 0 };
        cpu.shadow = Some(InterruptShadow::Sti);
        if self.alignment_mask {
            cpu.control.cr0 |= cr0::AM;
        }
        let mut code = self.code();
        self.aim(&mut machine, &mut code);
        machine.bus.store_bytes(CODE, &code);
        machine
    }

    /// Makes the operand's address the wanted one, by its displacement or its base.
    fn aim(&self, machine: &mut Machine, code: &mut [u8]) {
        let bytes = code.to_vec();
        let mut decoder = Decoder::with_ip(64, &bytes, CODE, DecoderOptions::AMD);
        let instruction = decoder.decode();
        let operands = 0..instruction.op_count();
        let Some(operand) = operands.clone().find(|&n| instruction.op_kind(n) == OpKind::Memory)
        else {
            return;
        };
        let cpu = &machine.cpu;
        let value = |register: Register, _, _| match register {
            Register::FS => Some(self.bases[0]),
            Register::GS => Some(self.bases[1]),
            Register::RIP | Register::EIP => Some(0),
            register if segment_from_decoder(register).is_some() => Some(0),
            register => GprPart::from_decoder(register).map(|part| cpu.gpr(part.register)),
        };
        let Some(now) = instruction.virtual_address(operand, 0, value) else { return };
        let missing = (WINDOW + self.offset).wrapping_sub(now);
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let places = decoder.get_constant_offsets(&instruction);
        if let Some(part) = GprPart::from_decoder(base) {
            if base != index {
                let register = &mut machine.cpu.gprs[part.register as usize];
                *register = register.wrapping_add(missing);
            }
        } else if places.displacement_size() == 4 {
            let place = &mut code[places.displacement_offset()..][..4];
            let old = i32::from_le_bytes(place.try_into().unwrap());
            place.copy_from_slice(
                &(i64::from(old).wrapping_add(missing as i64) as i32).to_le_bytes(),
            );
        }
    }

    fn run_short(&self, machine: &mut Machine, tried: TriedAccess) -> Option<Outcome> {
        let mut code = [0; 15];
        for (at, byte) in (CODE..).zip(&mut code) {
            *byte = machine.bus.load(at, 1) as u8;
        }
        try_short(machine, tried, &code)
    }
}

/// Executes the instruction that `code` begins with by the short way, if it is fit for that.
fn try_short(machine: &mut Machine, tried: TriedAccess, code: &[u8]) -> Option<Outcome> {
    emulate_move(&mut machine.cpu, &mut machine.bus, tried, &SimpleMove::decode(code)?)
}

/// The single access to the device that `machine` has made.
fn single_access(machine: &Machine) -> Option<TriedAccess> {
    let (address, is_write) = match machine.bus.log[..] {
        [Event::Read(address, _)] => (address, false),
        [Event::Write(address, ..)] => (address, true),
        _ => return None,
    };
    Some(TriedAccess { address: GuestPhysAddr::new(address), is_write })
}

/// Runs `case` both ways; true if the short way took it.
fn compare(case: &Case) -> Result<bool, TestCaseError> {
    let mut full = case.machine();
    let outcome = full.run();
    // After a fault, or without an access or with two, there is nothing that the CPU would have
    // left the guest for.
    let Some(tried) = single_access(&full).filter(|_| matches!(outcome, Outcome::Done { .. }))
    else {
        return Ok(false);
    };
    let mut short = case.machine();
    let untouched = short.cpu.clone();
    let ended = case.run_short(&mut short, tried);
    prop_assert!(ended.is_some() || !case.is_short(), "not taken: {:02x?}", case.code());
    let expected = if ended.is_some() { &full } else { &case.machine() };
    prop_assert_eq!(&short.cpu, &expected.cpu);
    prop_assert_eq!(&short.bus.log, &expected.bus.log);
    prop_assert!(ended.is_none_or(|ended| ended == outcome));
    let wrong = [
        TriedAccess { is_write: !tried.is_write, ..tried },
        TriedAccess { address: tried.address.checked_add(1).unwrap(), ..tried },
    ];
    for wrong in wrong {
        let mut short = case.machine();
        prop_assert_eq!(case.run_short(&mut short, wrong), None);
        prop_assert_eq!(&short.cpu, &untouched);
        prop_assert!(short.bus.log.is_empty());
    }
    Ok(ended.is_some())
}

#[test]
fn the_short_way_ends_as_the_full_emulator_does() {
    let taken = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(1500));
    let result = runner.run(&case(), |case| {
        taken.set(taken.get() + u32::from(compare(&case)?));
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(taken.get() > 500, "only {} moves took the short way", taken.get());
}

/// `mov eax, [rbx]`.
const LOAD: [u8; 2] = [0x8B, 0x03];

fn at_device() -> TriedAccess {
    TriedAccess { address: GuestPhysAddr::new(DEVICE), is_write: false }
}

fn try_load(mut machine: Machine, code: &[u8]) -> Option<Outcome> {
    machine.cpu.gprs[Gpr::Rbx as usize] = DEVICE;
    let before = machine.cpu.clone();
    let outcome = try_short(&mut machine, at_device(), code);
    if outcome.is_none() {
        assert_eq!(machine.cpu, before);
        assert!(machine.bus.log.is_empty());
    }
    outcome
}

#[test]
fn an_instruction_of_which_bytes_are_missing_is_left_to_the_full_emulator() {
    // MOV to FS:[RBX + 0], 64 bits, immediate: with all parts that a move can have.
    let longest = [0x64, 0x48, 0xC7, 0x84, 0x23, 0, 0, 0, 0, 1, 2, 3, 4];
    let tried = TriedAccess { is_write: true, ..at_device() };
    for length in 0..=longest.len() {
        let mut machine = Machine::long(&[]);
        machine.cpu.gprs[Gpr::Rbx as usize] = DEVICE;
        let code = &longest[..length];
        let outcome = try_short(&mut machine, tried, code);
        assert_eq!(outcome.is_some(), length == longest.len());
        assert_eq!(machine.bus.log.len(), usize::from(outcome.is_some()));
    }
    let prefixes = [[0x66; 13].as_slice(), &LOAD].concat();
    assert!(try_load(Machine::long(&[]), &prefixes).is_some());
    let too_long = [[0x66; 14].as_slice(), &LOAD].concat();
    assert!(try_load(Machine::long(&[]), &too_long).is_none());
}

#[test]
fn a_refused_access_is_left_to_the_full_emulator() {
    use super::machine::REFUSED;
    let mut machine = Machine::long(&LOAD);
    machine.cpu.gprs[Gpr::Rbx as usize] = REFUSED;
    let tried = TriedAccess { address: GuestPhysAddr::new(REFUSED), is_write: false };
    assert_eq!(try_short(&mut machine, tried, &LOAD), None);
    assert_eq!(machine.cpu.rip, CODE);
}
