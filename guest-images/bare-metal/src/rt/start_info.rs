// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the loader said: command line and ACPI root pointer.
//!
//! The structure is `hvm_start_info` of Xen's `arch-x86/hvm/start_info.h`. It is copied at
//! once, because the loader may have put it where the tests later write.

use core::ptr;

use super::cell::Fixed;

const MAGIC: u32 = 0x336E_C578;
const COMMAND_LINE_CAPACITY: usize = 256;

#[repr(C)]
#[derive(Clone, Copy)]
struct HvmStartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
}

struct Kept {
    valid: bool,
    rsdp: u64,
    command_line: [u8; COMMAND_LINE_CAPACITY],
    length: usize,
}

static KEPT: Fixed<Kept> =
    Fixed::new(Kept { valid: false, rsdp: 0, command_line: [0; COMMAND_LINE_CAPACITY], length: 0 });

/// Copies what the loader left at `address`.
pub fn keep(address: u64) {
    // SAFETY: the boot protocol puts a start info there, in identity-mapped memory; the magic
    // number is checked before anything in it is followed. Nobody else runs yet.
    unsafe {
        let info = ptr::read_unaligned(address as *const HvmStartInfo);
        if info.magic != MAGIC {
            return;
        }
        let kept = &mut *KEPT.get();
        kept.valid = true;
        kept.rsdp = info.rsdp;
        keep_command_line(info.command_line);
    }
}

/// Copies the command line, which ends with a zero byte, from `address`; zero means that there is
/// none.
pub fn keep_command_line(address: u64) {
    if address == 0 {
        return;
    }
    // SAFETY: the loader put it there, in identity-mapped memory. Nobody else runs yet.
    unsafe {
        let kept = &mut *KEPT.get();
        for (index, slot) in kept.command_line.iter_mut().enumerate() {
            let byte = ptr::read((address as *const u8).add(index));
            if byte == 0 {
                break;
            }
            *slot = byte;
            kept.length = index + 1;
        }
    }
}

fn kept() -> &'static Kept {
    // SAFETY: written only by `keep`, before anything else runs.
    unsafe { &*KEPT.get() }
}

/// Whether the loader passed a start info.
pub fn is_valid() -> bool {
    kept().valid
}

/// Address of the ACPI root pointer; 0 if there is none.
pub fn rsdp() -> u64 {
    kept().rsdp
}

/// The words of the command line.
pub fn words() -> impl Iterator<Item = &'static str> {
    let bytes = kept().command_line.get(..kept().length).unwrap_or_default();
    core::str::from_utf8(bytes).unwrap_or_default().split_ascii_whitespace()
}

/// Whether the command line has this word.
pub fn has_word(word: &str) -> bool {
    words().any(|found| found == word)
}

/// Whether the CPU is emulated by QEMU's TCG: on bare QEMU, or under a VMM that runs there and
/// says so by the word `tcg`. Some departures of TCG from the manuals no VMM can mend.
pub fn is_tcg_cpu() -> bool {
    super::cpu::is_bare_tcg() || has_word("tcg")
}

/// True if page faults are injected by a VMM on QEMU's TCG, which keeps shadow tables: their error
/// codes are the manuals', but TCG makes no double fault of an exception that meets another while
/// it is injected. The guest cannot see it; the word `tcg-shadow` tells.
pub fn is_tcg_shadow() -> bool {
    has_word("tcg-shadow")
}

/// True under SVM of Bochs 2.7, where some things end the emulated machine or cannot be told.
/// The guest cannot see it; the word `bochs-svm` tells.
pub fn is_bochs_svm() -> bool {
    has_word("bochs-svm")
}
