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

/// Where the two differ, and the other decoder is wrong, or the processors differ as well.
///
/// - Near branches with an operand-size prefix: the prefix chooses between displacements of 16
///   and 32 bits (AMD APM vol. 3, 1.2.2), which the other decoder does not see outside 32-bit
///   code.
/// - UD0 (0F FF) has operands on Intel's processors only (SDM vol. 2, UD). It exits on none, so
///   its length is never asked for.
fn is_known_difference(mode: Mode, code: &[u8]) -> bool {
    let prefixes = code.iter().take_while(|byte| is_prefix(mode, **byte)).count();
    let (prefixes, rest) = code.split_at(prefixes);
    let near_branch = matches!(rest, [0xE8 | 0xE9, ..] | [0x0F, 0x80..=0x8F, ..]);
    let undefined = matches!(rest, [0x0F, 0xFF, ..]);
    undefined || near_branch && prefixes.contains(&0x66)
}

fn is_prefix(mode: Mode, byte: u8) -> bool {
    let legacy = [0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3];
    legacy.contains(&byte) || mode == Mode::Long && byte & 0xF0 == 0x40
}
