// SPDX-License-Identifier: MIT OR Apache-2.0
//! A neighbour that works: it computes, goes through memory, leaves the guest in several ways, and
//! has a timer tick of its own.

use bare_metal::rt::apic::MSR_APIC_BASE;
use bare_metal::rt::cell::Fixed;
use bare_metal::rt::console::print_line;
use bare_metal::rt::cpu::{self, tsc};

use super::tick::Tick;

/// Words of memory that it goes through, a MiB.
const WORDS: usize = 1 << 17;
/// Words that it goes through in a round.
const WORDS_IN_ROUND: usize = 512;
/// A port of nobody.
const NOBODY: u16 = 0x5F0;

static MEMORY: Fixed<[u64; WORDS]> = Fixed::new([0; WORDS]);

/// Works for `span` ticks, with a timer that interrupts with this period, and prints how many rounds
/// it made, and what it computed, so that it has to be computed.
pub fn run(span: u64, period: Option<u64>, tick: &Tick) {
    // SAFETY: this runs once, on the only CPU, so that no other reference to it exists.
    let memory = unsafe { &mut *MEMORY.get() };
    tick.start(period);
    let begin = tsc();
    let (mut rounds, mut value, mut at) = (0_u64, 1_u64, 0);
    while tsc().wrapping_sub(begin) < span {
        for word in memory.iter_mut().skip(at).take(WORDS_IN_ROUND) {
            // Knuth's MMIX generator.
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(rounds | 1);
            *word ^= value;
        }
        at = (at + WORDS_IN_ROUND) % WORDS;
        value ^= u64::from(cpu::cpuid(0, 0)[0]) ^ cpu::rdmsr(MSR_APIC_BASE);
        value ^= u64::from(cpu::in8(NOBODY));
        rounds += 1;
    }
    let ticks = tick.stop();
    print_line(format_args!("busy rounds={rounds} ticks={ticks} value={value:x}"));
}
