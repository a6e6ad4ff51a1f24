// SPDX-License-Identifier: MIT OR Apache-2.0
//! Forms that compilers rarely emit for device registers.

use super::oracle::{ALL, WITHIN};
use crate::rt::report::Report;
use crate::rt::trap::Place;

/// CF, and OF for a shift by one.
const SHIFT: u64 = 0x801;
const ZERO: u64 = 0x40;

pub fn run(report: &mut Report) {
    each!(
        report,
        "rare:",
        WITHIN,
        SHIFT,
        Place::KERNEL,
        [
            "shl dword ptr [rdi], 1",
            "shr byte ptr [rdi], 1",
            "sar word ptr [rdi], 1",
            "rol qword ptr [rdi], 1",
            "ror dword ptr [rdi], 1",
            "rcl dword ptr [rdi], 1",
            "rcr dword ptr [rdi], 1",
            "imul eax, dword ptr [rdi]",
            "imul eax, dword ptr [rdi], 3",
            "mul dword ptr [rdi]",
            "imul word ptr [rdi]",
        ]
    );
    each!(
        report,
        "rare:",
        WITHIN,
        ALL,
        Place::KERNEL,
        [
            "sete byte ptr [rdi]",
            "cmovc eax, dword ptr [rdi]",
            "cmovnc rax, qword ptr [rdi]",
            "movnti dword ptr [rdi], eax",
        ]
    );
    each!(
        report,
        "rare:",
        WITHIN,
        ZERO,
        Place::KERNEL,
        [
            "lock cmpxchg8b qword ptr [rdi]",
            "xor eax, eax; xor edx, edx; lock cmpxchg8b qword ptr [rdi]",
            "bsf eax, dword ptr [rdi]",
        ]
    );
}
