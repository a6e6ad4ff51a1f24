// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that works and keeps watch: whatever goes on in VMs beside it, its memory, registers,
//! clocks and interrupts are its own.
//!
//! It ends when it reads "end of transmission" (0x04) from COM1, or after `seconds=N`. `gap=N`: the
//! most milliseconds between two ticks (10,000); `spoil`: it changes its own memory, and must
//! notice.

pub(super) mod registers;

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::drift::counter::{self, Counter};
use super::drift::{Elapsed, NANOSECONDS, Rate};
use crate::rt::console::{COM1, LINE_STATUS};
use crate::rt::cpu::{self, in8};
use crate::rt::report::Report;
use crate::rt::trap::{self, Frame};
use crate::rt::{apic, pic, pit, start_info};
use registers::Registers;

/// "End of transmission" of ASCII.
const END: u8 = 0x04;

/// Memory that is filled and looked at, a part in each step.
const MEMORY: u64 = 0x80_0000;
const WORDS: u64 = 0x40_0000 / 8;
const PART: u64 = 8192;

const TICK: u64 = 0x42;
const PIT_INPUT: u32 = 2;
const TICK_HZ: u64 = 100;

/// What clocks may differ from each other by: one in so many, and nanoseconds.
const CLOCK_SHARE: u64 = 1000;
const CLOCK_SLACK: u64 = 2_000_000;

static TICKS: AtomicU64 = AtomicU64::new(0);
static LAST_TICK: AtomicU64 = AtomicU64::new(0);
static LONGEST_GAP: AtomicU64 = AtomicU64::new(0);

/// Works until it is told to end.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    apic::enable(false);
    let frequency = match counter::frequencies() {
        Some((khz, _)) => khz * 1000,
        None => pit::tsc_frequency(),
    };
    let option = |name| start_info::words().find_map(|word| word.strip_prefix(name));
    let number = |name, other| option(name).and_then(|text| text.parse().ok()).unwrap_or(other);
    let (seconds, gap): (u64, u64) = (number("seconds=", u64::MAX), number("gap=", 10_000));
    let mut counters = counter::all(&report);
    let registers = Registers::fill();
    (0..WORDS).for_each(|index| write(index, word(index)));
    start_ticks();
    counters.iter_mut().flatten().for_each(Counter::start);
    let (begin, mut steps, mut bad_words, mut bad_registers) = (cpu::tsc(), 0_u64, 0_u64, 0_u64);
    let limit = frequency.saturating_mul(seconds);
    while !is_told_to_end() && cpu::tsc().wrapping_sub(begin) < limit {
        bad_words += work(steps);
        bad_registers += u64::from(!registers.hold());
        counters.iter_mut().flatten().for_each(Counter::advance);
        steps += 1;
        if steps == 10 && start_info::has_word("spoil") {
            write(PART * 11, 0);
        }
        cpu::wait_for_interrupt();
    }
    pit::stop_channel0();
    apic::route(PIT_INPUT, apic::MASKED);
    println!("{steps} steps, {} ticks", TICKS.load(Ordering::SeqCst));
    report.equal("words that changed", bad_words, 0);
    report.equal("times that registers had changed", bad_registers, 0);
    judge_ticks(&mut report, frequency, gap);
    for counter in counters.iter_mut().flatten() {
        let elapsed = counter.elapsed();
        judge_clock(&mut report, counter.name(), &elapsed, frequency);
    }
    report.finish()
}

/// What the word with this index holds.
const fn word(index: u64) -> u64 {
    (index ^ 0x5DEE_CE66).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn write(index: u64, value: u64) {
    // SAFETY: memory that neither the loader nor this program uses, see `MEMORY`.
    unsafe { ptr::write_volatile((MEMORY as *mut u64).add((index % WORDS) as usize), value) };
}

/// Goes over a part of the memory: what it sums up must be what the same sum over the numbers that
/// belong there gives. Each word is changed and put back. Returns the number of wrong words.
fn work(step: u64) -> u64 {
    let first = step * PART % WORDS;
    let (mut sum, mut expected, mut wrong) = (step, step, 0);
    for index in first..first + PART {
        // SAFETY: as in `write`.
        let found = unsafe { ptr::read_volatile((MEMORY as *const u64).add(index as usize)) };
        write(index, !found);
        write(index, found);
        sum = (sum ^ found).rotate_left(13).wrapping_mul(0x100_0000_01B3);
        expected = (expected ^ word(index)).rotate_left(13).wrapping_mul(0x100_0000_01B3);
        wrong += u64::from(found != word(index));
    }
    wrong.max(u64::from(sum != expected))
}

fn is_told_to_end() -> bool {
    in8(LINE_STATUS) & 1 != 0 && in8(COM1) == END
}

fn start_ticks() {
    trap::handle(TICK, Some(ticked));
    apic::route(PIT_INPUT, TICK as u32);
    LAST_TICK.store(cpu::tsc(), Ordering::SeqCst);
    pit::start_channel0(2, (pit::FREQUENCY / TICK_HZ) as u16);
}

fn ticked(_: &mut Frame) {
    let now = cpu::tsc();
    let gap = now.wrapping_sub(LAST_TICK.swap(now, Ordering::SeqCst));
    LONGEST_GAP.fetch_max(gap, Ordering::SeqCst);
    TICKS.fetch_add(1, Ordering::SeqCst);
    apic::end_of_interrupt();
}

/// The longest time without a tick. Ticks of the same time count as one, so their number says
/// little where the machine itself does not always run.
fn judge_ticks(report: &mut Report, frequency: u64, gap: u64) {
    let since = cpu::tsc().wrapping_sub(LAST_TICK.load(Ordering::SeqCst));
    let longest = LONGEST_GAP.load(Ordering::SeqCst).max(since);
    let milliseconds = u128::from(longest) * 1000 / u128::from(frequency.max(1));
    report.within("longest time between ticks in ms", milliseconds as u64, 0, gap);
}

/// All clocks must tell the same time.
fn judge_clock(report: &mut Report, name: &str, elapsed: &Elapsed, frequency: u64) {
    let expected = Rate::hertz(frequency).nanoseconds(elapsed.tsc);
    let slack = expected / CLOCK_SHARE + CLOCK_SLACK;
    report.within(
        format_args!("{name} in ns"),
        elapsed.nanoseconds,
        expected.saturating_sub(slack),
        expected.saturating_add(slack),
    );
    let seconds = u128::from(elapsed.nanoseconds) / NANOSECONDS;
    println!("{name}: {seconds} s");
}
