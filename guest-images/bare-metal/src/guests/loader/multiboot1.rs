// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot information of a multiboot loader (Multiboot 0.6.96, 3.3).

use super::{Given, List, Module, Range};
use crate::rt::handover::{read as number, text};
use crate::rt::report::Report;

const HAS_MEMORY: u32 = 1 << 0;
const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;
const HAS_LOADER_NAME: u32 = 1 << 9;

pub(super) fn read(at: u64, report: &mut Report) -> Given {
    let field = |offset: u64| number::<u32>(at + offset);
    let wanted = HAS_MEMORY | HAS_COMMAND_LINE | HAS_MODULES | HAS_MEMORY_MAP | HAS_LOADER_NAME;
    report.equal("the fields are valid", field(0) & wanted, wanted);
    report.within("KiB of lower memory", field(4).into(), 600, 640);
    report.within("KiB of upper memory", field(8).into(), 61 << 10, 63 << 10);
    report.holds("the loader has a name", !text(field(64).into()).is_empty(), field(64));
    let modules = (0..u64::from(field(20))).map(|index| {
        let entry = u64::from(field(24)) + 16 * index;
        let start = u64::from(number::<u32>(entry));
        let bytes = u64::from(number::<u32>(entry + 4)).saturating_sub(start);
        Module { start, bytes, text: number::<u32>(entry + 8).into() }
    });
    let (first, bytes) = (u64::from(field(48)), u64::from(field(44)));
    let mut entry = first;
    let map = core::iter::from_fn(|| {
        let (current, size) = (entry, u64::from(number::<u32>(entry)) + 4);
        entry += size;
        (current + size <= first + bytes).then(|| Range {
            start: number(current + 4),
            bytes: number(current + 12),
            kind: number(current + 20),
        })
    });
    Given { modules: List::of(modules), map: List::of(map), information: (at, at + 88) }
}
