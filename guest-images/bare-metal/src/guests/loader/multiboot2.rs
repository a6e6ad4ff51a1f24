// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot information of a Multiboot2 loader (Multiboot2 2.0, 3.6).

use super::{Given, List, Module, Range};
use crate::rt::handover::{read as number, tags, text};
use crate::rt::report::Report;

const LOADER_NAME: u32 = 2;
const MODULE: u32 = 3;
const BASIC_MEMORY: u32 = 4;
const MEMORY_MAP: u32 = 6;
const ACPI_OLD: u32 = 14;
const ACPI_NEW: u32 = 15;

pub(super) fn read(at: u64, report: &mut Report) -> Given {
    let total = u64::from(number::<u32>(at));
    report.equal("the information starts at a multiple of eight", at % 8, 0);
    let end =
        tags(at).last().map_or(at + 8, |(_, content, size)| (content + size).next_multiple_of(8));
    report.equal("its length is that of its tags", end + 8 - at, total);
    let find = |kind| tags(at).find(|tag| tag.0 == kind).map(|tag| tag.1);
    let name = find(LOADER_NAME).map(text);
    report.holds("the loader has a name", name.is_some_and(|name| !name.is_empty()), name);
    let memory = find(BASIC_MEMORY).unwrap_or(0);
    report.within("KiB of lower memory", number::<u32>(memory).into(), 600, 640);
    report.within("KiB of upper memory", number::<u32>(memory + 4).into(), 61 << 10, 63 << 10);
    let rsdp = find(ACPI_NEW).or(find(ACPI_OLD)).map(number::<[u8; 8]>);
    report.equal("the ACPI root pointer is there", rsdp, Some(*b"RSD PTR "));
    let modules = tags(at).filter(|tag| tag.0 == MODULE).map(|(_, content, _)| {
        let start = u64::from(number::<u32>(content));
        let bytes = u64::from(number::<u32>(content + 4)).saturating_sub(start);
        Module { start, bytes, text: content + 8 }
    });
    let map =
        tags(at).find(|tag| tag.0 == MEMORY_MAP).into_iter().flat_map(|(_, content, size)| {
            let step = u64::from(number::<u32>(content)).max(24);
            (content + 8..content + size).step_by(step as usize).map(|entry| Range {
                start: number(entry),
                bytes: number(entry + 8),
                kind: number(entry + 16),
            })
        });
    Given { modules: List::of(modules), map: List::of(map), information: (at, at + total) }
}
