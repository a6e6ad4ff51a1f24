// SPDX-License-Identifier: MIT OR Apache-2.0
//! String instructions into, out of and within the device.

use super::oracle::{ALL, INTO, Layout, WITHIN};
use crate::rt::report::Report;
use crate::rt::trap::Place;

pub fn run(report: &mut Report) {
    store_and_load(report);
    moves(report);
    scans(report);
    across(report, INTO);
}

fn store_and_load(report: &mut Report) {
    each!(
        report,
        "device:",
        WITHIN,
        ALL,
        Place::KERNEL,
        [
            "stosb",
            "stosw",
            "stosd",
            "stosq",
            "std; stosd; cld",
            "mov ecx, 5; rep stosb",
            "mov ecx, 5; rep stosd",
            "mov ecx, 3; rep stosq",
            "mov ecx, 0; rep stosd",
            "mov ecx, 4; std; rep stosw; cld",
            "xchg rsi, rdi; lodsb",
            "xchg rsi, rdi; lodsw",
            "xchg rsi, rdi; lodsd",
            "xchg rsi, rdi; lodsq",
            "xchg rsi, rdi; mov ecx, 3; rep lodsd",
        ]
    );
}

fn moves(report: &mut Report) {
    each!(
        report,
        "device:",
        WITHIN,
        ALL,
        Place::KERNEL,
        [
            "movsb",
            "movsw",
            "movsd",
            "movsq",
            "mov ecx, 7; rep movsb",
            "mov ecx, 4; rep movsd",
            "mov ecx, 3; rep movsq",
            "mov ecx, 0; rep movsb",
            "mov ecx, 2; std; rep movsd; cld",
            "xchg rsi, rdi; movsb",
            "xchg rsi, rdi; movsd",
            "xchg rsi, rdi; mov ecx, 7; rep movsb",
            "xchg rsi, rdi; mov ecx, 5; rep movsw",
            "xchg rsi, rdi; mov ecx, 3; rep movsq",
            "xchg rsi, rdi; mov ecx, 2; std; rep movsd; cld",
            "lea rsi, [rdi + 0x20]; movsd",
            "lea rsi, [rdi + 0x20]; mov ecx, 3; rep movsd",
            "mov ecx, 7; .byte 0x67; rep movsb",
        ]
    );
}

fn scans(report: &mut Report) {
    each!(
        report,
        "device:",
        WITHIN,
        ALL,
        Place::KERNEL,
        [
            "scasb",
            "scasw",
            "scasd",
            "scasq",
            "mov ecx, 4; repe scasb",
            "mov ecx, 4; repne scasb",
            "mov ecx, 4; repe scasd",
            "mov ecx, 0; repne scasd",
            "cmpsb",
            "cmpsw",
            "cmpsd",
            "cmpsq",
            "xchg rsi, rdi; cmpsd",
            "mov ecx, 4; repe cmpsb",
            "mov ecx, 4; repne cmpsb",
            "lea rsi, [rdi + 0x20]; mov ecx, 4; repe cmpsd",
            "lea rsi, [rdi + 0x20]; mov ecx, 4; repne cmpsw",
        ]
    );
}

/// From memory into the device in the middle of the string.
fn across(report: &mut Report, layout: Layout) {
    each!(
        report,
        "into device:",
        layout,
        ALL,
        Place::KERNEL,
        [
            "mov ecx, 9; rep stosb",
            "mov ecx, 3; rep stosd",
            "mov ecx, 9; rep movsb",
            "mov ecx, 3; rep movsq",
            "xchg rsi, rdi; mov ecx, 9; rep movsb",
            "xchg rsi, rdi; mov ecx, 3; rep movsd",
            "mov ecx, 9; repne scasb",
            "mov ecx, 9; repe cmpsb",
        ]
    );
}
