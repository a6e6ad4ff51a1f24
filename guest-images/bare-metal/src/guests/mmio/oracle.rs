// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs an instruction on memory and on a device, and compares.

use core::fmt::Display;

use crate::rt::paging::{self, LARGE, NEAR, PRESENT, SCRATCH, USER, WRITABLE};
use crate::rt::report::Report;
use crate::rt::trap::Trap;

/// Flags that an instruction defines.
pub const ALL: u64 = 0x8D5;
/// AND, OR, XOR and TEST leave AF undefined.
pub const LOGIC: u64 = ALL & !0x10;
/// The bit tests define CF only.
pub const BIT: u64 = 0x1;

/// Memory that stands in for the device: two large pages in the middle of a small VM's memory.
const STAND_IN: u64 = 0x0200_0000;
const FLAGS: u64 = PRESENT | WRITABLE | USER;

/// What lies behind the two large pages at [`NEAR`].
#[derive(Clone, Copy)]
pub struct Layout {
    /// Frame of the first page when it is the device; `None` keeps memory there.
    pub first: Option<u64>,
    /// The same for the second.
    pub second: Option<u64>,
    /// Where the operand is.
    pub at: u64,
}

/// A large frame of which nobody owns the page at offset 0x10_0000.
const NOBODY: u64 = paging::UNOWNED - 0x10_0000;
/// A large frame of which nobody owns the end.
const NOBODY_END: u64 = 0xFE80_0000;

/// The page that nobody owns.
pub const WITHIN: Layout = Layout { first: Some(NOBODY), second: None, at: NEAR + 0x10_0100 };
/// One byte of memory, then nothing.
pub const INTO: Layout = Layout { first: None, second: Some(NOBODY), at: NEAR + LARGE - 1 };
/// One byte of nothing, then memory.
pub const OUT_OF: Layout = Layout { first: Some(NOBODY_END), second: None, at: NEAR + LARGE - 1 };

/// What an instruction starts with. RDI holds the operand's address and RSI that of a buffer.
#[derive(Clone, Copy)]
pub struct Inputs {
    pub at: u64,
    pub buffer: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub flags: u64,
}

/// Everything that must come out the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outcome {
    cause: (u64, u64),
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    rsp: i64,
    flags: u64,
    buffer: u64,
    memory: u64,
}

/// Register values: small, large, with the sign in every width, and one that equals nothing.
const VALUES: [(u64, u64, u64); 4] = [
    (0, 1, 2),
    (0x8081_8283_8485_8687, 3, 0x1122_3344_5566_7788),
    (u64::MAX, 0xFFFF_FFFF_FFFF_FF05, 0x7FFF_FFFF_FFFF_FFFF),
    (0xFF00_FF00_FF00_FF00, 0x21, 0x8000_0000_8000_0080),
];

fn map(layout: Layout, device: bool) {
    let frame =
        |place: Option<u64>, memory: u64| place.filter(|_| device).unwrap_or(memory) | FLAGS;
    paging::map_near(false, frame(layout.first, STAND_IN));
    paging::map_near(true, frame(layout.second, STAND_IN + LARGE));
}

/// Bytes around the operand: what the device reads as, or a pattern where memory stays.
fn fill(layout: Layout) {
    let nothing = paging::nothing() as u8;
    map(layout, false);
    for offset in 0..0x80 {
        let address = layout.at - 0x40 + offset;
        let part = if address < NEAR + LARGE { layout.first } else { layout.second };
        let byte = if part.is_some() { nothing } else { offset as u8 ^ 0x5A };
        // SAFETY: the stand-in is memory that nothing else uses.
        unsafe { (address as *mut u8).write_volatile(byte) };
    }
    for index in 0..64 {
        // SAFETY: the buffer is the tests' own.
        unsafe {
            SCRATCH.get().cast::<u8>().add(index).write_volatile((index * 37) as u8 | 0x80);
        }
    }
}

fn sum(address: u64, bytes: u64) -> u64 {
    (0..bytes).fold(0, |sum, offset| {
        // SAFETY: called for the buffer, and for mapped memory of the tests.
        let byte = unsafe { ((address + offset) as *const u8).read_volatile() };
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// The part of the surroundings that is memory in either case.
fn memory_sum(layout: Layout) -> u64 {
    match (layout.first, layout.second) {
        (None, _) => sum(layout.at - 0x40, NEAR + LARGE - (layout.at - 0x40)),
        (_, None) if layout.at + 0x40 > NEAR + LARGE => sum(NEAR + LARGE, 0x20),
        _ => 0,
    }
}

fn once(
    layout: Layout,
    device: bool,
    mask: u64,
    inputs: Inputs,
    instruction: &dyn Fn(Inputs) -> Trap,
) -> Outcome {
    fill(layout);
    map(layout, device);
    let trap = instruction(inputs);
    let frame = trap.frame;
    Outcome {
        cause: trap.cause(),
        rax: frame.rax,
        rcx: frame.rcx,
        rdx: frame.rdx,
        rsi: frame.rsi,
        rdi: frame.rdi,
        rsp: frame.rsp.wrapping_sub(frame.r8) as i64,
        flags: frame.rflags & mask,
        buffer: sum(SCRATCH.address(), 64),
        memory: memory_sum(layout),
    }
}

/// Runs the instruction with many inputs; passes when device and memory agree each time.
pub fn compare(
    report: &mut Report,
    name: impl Display,
    layout: Layout,
    mask: u64,
    instruction: &dyn Fn(Inputs) -> Trap,
) {
    let buffer = SCRATCH.address() + 0x10;
    let mut last = None;
    for (index, (rax, rcx, rdx)) in VALUES.iter().chain(&VALUES).copied().enumerate() {
        let flags = if index < VALUES.len() { 0 } else { ALL };
        let inputs = Inputs { at: layout.at, buffer, rax, rcx, rdx, flags };
        let expected = once(layout, false, mask, inputs, instruction);
        let got = once(layout, true, mask, inputs, instruction);
        last = Some((got, expected));
        if got != expected {
            break;
        }
    }
    if let Some((got, expected)) = last {
        report.equal(name, got, expected);
    }
}

/// One [`compare`] for each instruction, named by its text.
macro_rules! each {
    ($report:expr, $prefix:expr, $layout:expr, $mask:expr, $place:expr, [$($instruction:expr),+ $(,)?]) => {
        $(
            $crate::guests::mmio::oracle::compare(
                $report,
                format_args!("{} {}", $prefix, $instruction),
                $layout,
                $mask,
                &|inputs: $crate::guests::mmio::oracle::Inputs| {
                    run!(
                        $place.with_flags(inputs.flags),
                        [$instruction],
                        in("rdi") inputs.at,
                        in("rsi") inputs.buffer,
                        in("rax") inputs.rax,
                        in("rcx") inputs.rcx,
                        in("rdx") inputs.rdx
                    )
                },
            );
        )+
    };
}
