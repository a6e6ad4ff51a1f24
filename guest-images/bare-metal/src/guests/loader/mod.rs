// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a loader gives a guest besides its image: memory map, modules, command line.
//!
//! The tests give two modules, whose content is known here, and the word `loader-test` on the
//! command line. The same checks are for all boot protocols; each has a module that reads what
//! the loader left.

mod multiboot1;
mod multiboot2;
mod pvh;

use crate::rt::handover::{self, Handover, MULTIBOOT, MULTIBOOT2};
use crate::rt::report::Report;
use crate::rt::start_info;

/// Memory of the guests, in bytes.
const MEMORY: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
const PAGE: u64 = 0x1000;

/// Usable memory in a memory map.
const USABLE: u32 = 1;

/// Ends of the names of the modules.
const MODULE_NAMES: [&[u8]; 2] = [b"first.module", b"second.module"];

/// One range of the memory map.
#[derive(Clone, Copy, Default)]
struct Range {
    start: u64,
    bytes: u64,
    kind: u32,
}

/// One module.
#[derive(Clone, Copy, Default)]
struct Module {
    start: u64,
    bytes: u64,
    text: u64,
}

/// A list of what a loader gave, of which more than eight are not looked at.
#[derive(Default)]
struct List<T> {
    items: [T; 8],
    count: usize,
}

impl<T: Copy + Default> List<T> {
    fn of(items: impl Iterator<Item = T>) -> Self {
        let mut list = Self::default();
        for (slot, item) in list.items.iter_mut().zip(items) {
            *slot = item;
            list.count += 1;
        }
        list
    }

    fn get(&self) -> &[T] {
        self.items.get(..self.count).unwrap_or_default()
    }
}

/// What is to be checked whatever the protocol.
struct Given {
    map: List<Range>,
    modules: List<Module>,
    /// First and last byte of what the loader wrote for the guest to read.
    information: (u64, u64),
}

unsafe extern "C" {
    /// First byte of the image in memory.
    static image_start: u8;
    /// Behind its last byte, zeroes included.
    static image_end: u8;
}

/// Checks everything.
pub fn run() -> u32 {
    let mut report = Report::default();
    let Handover { magic, address } = handover::get();
    let given = match magic {
        MULTIBOOT => multiboot1::read(address, &mut report),
        MULTIBOOT2 => multiboot2::read(address, &mut report),
        0 => pvh::read(address, &mut report),
        _ => {
            report.holds("the magic number is that of a protocol", false, magic);
            return report.finish();
        }
    };
    report.equal("the command line is passed", start_info::has_word("loader-test"), true);
    memory_map(&mut report, given.map.get());
    modules(&mut report, &given);
    report.finish()
}

fn memory_map(report: &mut Report, map: &[Range]) {
    report.within("ranges in the memory map", map.len() as u64, 3, 8);
    let ends_sanely = |range: &Range| range.start.checked_add(range.bytes).is_some();
    report.equal("no range wraps or is empty", map.iter().all(ends_sanely), true);
    let mut pairs = map.iter().zip(map.iter().skip(1));
    let apart = pairs.all(|(one, next)| one.start.saturating_add(one.bytes) <= next.start);
    report.equal("ranges ascend without overlap", apart, true);
    let usable: u64 = usable(map).map(|range| range.bytes).sum();
    report.within("usable memory", usable, MEMORY - 2 * MIB, MEMORY);
    let hole = |range: &Range| range.start < MIB && range.start + range.bytes > 0xA_0000;
    report.equal("no memory below 1 MiB and above 640 KiB", self::usable(map).any(hole), false);
    let (start, end) = image();
    report.equal("the image is in usable memory", is_usable(map, start, end), true);
}

fn modules(report: &mut Report, given: &Given) {
    let modules = given.modules.get();
    report.equal("modules", modules.len(), MODULE_NAMES.len());
    for (index, (module, name)) in modules.iter().zip(MODULE_NAMES).enumerate() {
        let Module { start, bytes, text } = *module;
        report.equal(format_args!("module {index} starts a page"), start % PAGE, 0);
        let usable = is_usable(given.map.get(), start, start.saturating_add(bytes));
        report.equal(format_args!("module {index} is in usable memory"), usable, true);
        report.equal(format_args!("length of module {index}"), bytes, module_bytes(index));
        let differs = (0..bytes.min(module_bytes(index)))
            .find(|&at| handover::read::<u8>(start + at) != module_byte(index, at));
        report.equal(format_args!("content of module {index}"), differs, None);
        let named = handover::text(text).ends_with(name);
        report.equal(format_args!("text of module {index}"), named, true);
        let others = modules.iter().skip(index + 1).map(|other| (other.start, other.bytes));
        let (image_at, image_ends) = image();
        let (information, last) = given.information;
        let taken = [(image_at, image_ends - image_at), (information, last - information)];
        let overlap = |(other, length): (u64, u64)| start < other + length && other < start + bytes;
        let clear = !others.chain(taken).any(overlap);
        report.equal(format_args!("module {index} overlaps nothing"), clear, true);
    }
}

/// Length of a module: one of a few bytes, and one of several pages and a bit.
fn module_bytes(index: usize) -> u64 {
    if index == 0 { 5 } else { 3 * PAGE + 7 }
}

/// What a byte of a module is.
fn module_byte(index: usize, at: u64) -> u8 {
    (at as u8).wrapping_mul(7).wrapping_add(index as u8 + 1)
}

fn usable(map: &[Range]) -> impl Iterator<Item = &Range> {
    map.iter().filter(|range| range.kind == USABLE)
}

fn is_usable(map: &[Range], start: u64, end: u64) -> bool {
    usable(map).any(|range| range.start <= start && end <= range.start + range.bytes)
}

fn image() -> (u64, u64) {
    (&raw const image_start as u64, &raw const image_end as u64)
}
