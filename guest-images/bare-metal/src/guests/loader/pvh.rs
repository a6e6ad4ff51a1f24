// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start info of PVH and of flat images (Xen, `public/arch-x86/hvm/start_info.h`).

use super::{Given, List, Module, Range};
use crate::rt::handover::read as number;
use crate::rt::report::Report;

pub(super) fn read(at: u64, report: &mut Report) -> Given {
    report.equal("start info", number::<u32>(at), 0x336E_C578);
    report.equal("its version has a memory map", number::<u32>(at + 4), 1);
    let rsdp = number::<[u8; 8]>(number::<u64>(at + 32));
    report.equal("the ACPI root pointer is there", rsdp, *b"RSD PTR ");
    let modules = (0..u64::from(number::<u32>(at + 12))).map(|index| {
        let entry = number::<u64>(at + 16) + 32 * index;
        Module { start: number(entry), bytes: number(entry + 8), text: number(entry + 16) }
    });
    let map = (0..u64::from(number::<u32>(at + 48))).map(|index| {
        let entry = number::<u64>(at + 40) + 24 * index;
        Range { start: number(entry), bytes: number(entry + 8), kind: number(entry + 16) }
    });
    Given { modules: List::of(modules), map: List::of(map), information: (at, at + 56) }
}
