// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lengths of instructions, as the emulator finds them, against a decoder that it does not use.

use vmm_core::emulate::{instruction_length, length_of_common};
use vmm_core::test_support::machine::Machine;
use yaxpeax_arch::{Decoder, LengthedInstruction, U8Reader};
use yaxpeax_x86::{long_mode, protected_mode, real_mode};

/// Size of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Long,
    Protected,
    Real,
}

/// The first byte of an input chooses the mode, and how much of the rest is told to the emulator;
/// the rest is code.
pub fn run(input: &[u8]) {
    let Some((choice, code)) = input.split_first() else { return };
    let mode = match choice % 3 {
        0 => Mode::Long,
        1 => Mode::Protected,
        _ => Mode::Real,
    };
    let code = &code[..code.len().min(15)];
    let mut padded = [0xF4; 15];
    padded[..code.len()].copy_from_slice(code);
    let told = (choice / 3 % 2 == 1).then_some(&padded[..]);
    let mut machine = match mode {
        Mode::Long => Machine::long(&padded),
        Mode::Protected => Machine::protected(&padded),
        Mode::Real => Machine::real(&padded),
    };
    let found = instruction_length(&mut machine.cpu, &mut machine.bus, told).ok();
    if let (Some(found), Some(expected)) = (found, second_opinion(mode, &padded))
        && !is_known_difference(mode, &padded)
    {
        assert_eq!(found, expected, "{mode:?} {padded:02x?}");
        if let Some(common) = length_of_common(&padded) {
            assert_eq!(common, expected, "{mode:?} {padded:02x?}");
        }
    }
}

/// What the other decoder says; `None` for what is no instruction to it.
fn second_opinion(mode: Mode, code: &[u8]) -> Option<usize> {
    let mut reader = U8Reader::new(code);
    let length = match mode {
        Mode::Long => long_mode::InstDecoder::default().decode(&mut reader).ok()?.len().to_const(),
        Mode::Protected => u64::from(
            protected_mode::InstDecoder::default().decode(&mut reader).ok()?.len().to_const(),
        ),
        Mode::Real => {
            u64::from(real_mode::InstDecoder::default().decode(&mut reader).ok()?.len().to_const())
        }
    };
    usize::try_from(length).ok()
}

/// Where the two differ, and both may.
fn is_known_difference(mode: Mode, code: &[u8]) -> bool {
    let _ = (mode, code);
    false
}
