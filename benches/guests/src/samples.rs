// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many rounds of one operation, and what is said of them.

use core::fmt::Display;

use bare_metal::rt::cell::Fixed;
use bare_metal::rt::console::print_line;
use bare_metal::rt::cpu::tsc;
use bare_metal::rt::start_info::words;

/// Rounds that are counted.
const ROUNDS: usize = 1000;
/// Rounds before them, in which whoever answers does what he does only once.
const WARM_UP: usize = 8;

/// Rounds before those of long operations.
pub const FEW_WARM_UP: usize = 1;

static SAMPLES: Fixed<[u64; ROUNDS]> = Fixed::new([0; ROUNDS]);

/// Measures and prints one line for each operation:
///
/// ```text
/// bench NAME rounds=N min=TICKS median=TICKS p99=TICKS max=TICKS
/// ```
pub struct Bench {
    /// Ticks that reading the counter twice takes by itself.
    overhead: u64,
}

impl Bench {
    /// Calibrates the measurement by doing nothing.
    pub fn new() -> Self {
        let mut bench = Self { overhead: 0 };
        let nothing = bench.gather(WARM_UP, ROUNDS, |_| ticks(|| {}));
        bench.overhead = nothing.first().copied().unwrap_or(0);
        bench
    }

    /// The ticks of `operation`.
    pub fn operation(&self, name: &str, mut operation: impl FnMut()) {
        self.sample(name, |_| ticks(&mut operation));
    }

    /// Like [`operation`](Self::operation), with what `prepare` does before each round left out.
    pub fn prepared(
        &self,
        name: &str,
        mut prepare: impl FnMut(usize),
        mut operation: impl FnMut(),
    ) {
        self.sample(name, |round| {
            prepare(round);
            ticks(&mut operation)
        });
    }

    /// What `measure` gives for each round, which includes reading the counter twice.
    pub fn sample(&self, name: &str, measure: impl FnMut(usize) -> u64) {
        if !is_wanted(name) {
            return;
        }
        self.say(name, self.gather(WARM_UP, ROUNDS, measure));
    }

    /// The ticks of a long operation in a few rounds, at most [`ROUNDS`].
    pub fn few(&self, name: &str, rounds: usize, mut operation: impl FnMut()) {
        self.say(name, self.gather(FEW_WARM_UP, rounds, |_| ticks(&mut operation)));
    }

    fn say(&self, name: &str, sorted: &[u64]) {
        let rounds = sorted.len();
        let at =
            |index: usize| sorted.get(index).copied().unwrap_or(0).saturating_sub(self.overhead);
        print_line(format_args!(
            "bench {name} rounds={rounds} min={} median={} p99={} max={}",
            at(0),
            at(rounds / 2),
            at(rounds * 99 / 100),
            at(rounds.saturating_sub(1))
        ));
    }

    /// Says that there is nothing to measure here.
    pub fn skip(&self, name: &str, why: impl Display) {
        print_line(format_args!("skip {name}: {why}"));
    }

    /// Runs all rounds and gives the samples in ascending order.
    fn gather(
        &self,
        warm_up: usize,
        rounds: usize,
        mut measure: impl FnMut(usize) -> u64,
    ) -> &'static [u64] {
        // SAFETY: the boot CPU alone measures, one operation at a time, and the shared slice of
        // the previous one is no longer used when the next begins.
        let samples = unsafe { &mut *SAMPLES.get() };
        let samples = samples.get_mut(..rounds).unwrap_or_default();
        // One loop, so that what is counted is at the address at which it was warmed up.
        for round in 0..warm_up + samples.len() {
            let sample = measure(round);
            if let Some(counted) = round.checked_sub(warm_up).and_then(|at| samples.get_mut(at)) {
                *counted = sample;
            }
        }
        samples.sort_unstable();
        samples
    }
}

/// Whether the command line wants this row: all, unless it names one by the word `only=NAME`.
fn is_wanted(name: &str) -> bool {
    words().find_map(|word| word.strip_prefix("only=")).is_none_or(|only| only == name)
}

/// The time-stamp counter's advance over an operation.
#[inline(always)]
pub fn ticks(operation: impl FnOnce()) -> u64 {
    let start = tsc();
    operation();
    tsc().wrapping_sub(start)
}
