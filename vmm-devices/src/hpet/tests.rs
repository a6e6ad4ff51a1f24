// SPDX-License-Identifier: MIT OR Apache-2.0
use std::sync::Mutex as StdMutex;

use host_mock::MockHost;
use proptest::prelude::*;
use vmm_core::{Doorbell, InterruptInputs, TimerBank};

use super::*;
use crate::test_support::through_json;

/// Levels and rising edges of many lines.
#[derive(Default)]
struct Lines(StdMutex<Vec<(u32, bool)>>);

impl Lines {
    /// Numbers of the lines that rose since the last call, in order.
    fn rises(&self) -> Vec<u32> {
        let changes = std::mem::take(&mut *self.0.lock().unwrap());
        changes.into_iter().filter(|&(_, level)| level).map(|(line, _)| line).collect()
    }
}

impl InterruptInputs for Lines {
    fn set_input(&self, input: u32, asserted: bool) {
        self.0.lock().unwrap().push((input, asserted));
    }
}

struct Bench {
    host: &'static MockHost,
    bank: Arc<TimerBank>,
    lines: Arc<Lines>,
    replacement: Arc<LegacyReplacement>,
    hpet: Arc<Hpet>,
}

fn bench() -> Bench {
    let host = MockHost::leak(1);
    let clock = VmClock::start(host);
    host.advance(123_450);
    let bank = TimerBank::new(Doorbell::disconnected());
    let lines = Arc::new(Lines::default());
    let line = |number| IrqLine::new(lines.clone(), number);
    let replacement = LegacyReplacement::new(line(0), line(8));
    let inputs = [20, 21, 22, 23].map(line);
    let hpet = Hpet::new(clock, Timer::new(&bank, 2).unwrap(), replacement.clone(), inputs);
    Bench { host, bank, lines, replacement, hpet }
}

impl Bench {
    fn read(&self, register: u64) -> u64 {
        self.hpet.read_mmio(register, AccessWidth::Qword).unwrap()
    }

    fn write(&self, register: u64, value: u64) {
        assert!(self.hpet.write_mmio(register, AccessWidth::Qword, value));
    }

    /// Moves the clock on by `ticks`, serving timers on the way.
    fn run(&self, ticks: u64) {
        let end = self.hpet.clock.now().after(ticks * TICK_NS);
        while let Some(at) = self.bank.earliest().filter(|&at| at <= end) {
            self.host.advance(at.since(self.hpet.clock.now()));
            self.bank.expire(self.hpet.clock.now());
        }
        self.host.advance(end.since(self.hpet.clock.now()));
    }

    fn armed_in(&self) -> Option<u64> {
        self.bank.earliest().map(|at| at.since(self.hpet.clock.now()) / TICK_NS)
    }
}

const fn config(timer: u64) -> u64 {
    0x100 + 0x20 * timer
}

const fn comparator(timer: u64) -> u64 {
    0x108 + 0x20 * timer
}

const LEVEL: u64 = 1 << 1;
const INT: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const SET_VALUE: u64 = 1 << 6;
const BITS_32: u64 = 1 << 8;

const fn route(input: u64) -> u64 {
    input << 9
}

#[test]
fn identity_and_reset_state() {
    let b = bench();
    assert_eq!(b.read(CAPABILITIES), 0x0098_9680_8086_A201);
    assert_eq!(b.read(CONFIGURATION), 0);
    b.run(1000);
    assert_eq!(b.read(MAIN_COUNTER), 0);
    for timer in 0..3 {
        assert_eq!(b.read(config(timer)), 0x00F0_0000_0000_0030);
        assert_eq!(b.read(comparator(timer)), u64::MAX);
        assert_eq!(b.read(config(timer) + 0x10), 0, "there is no FSB route");
    }
    assert_eq!((b.read(config(3)), b.read(0x3F8)), (0, 0));
    b.write(CAPABILITIES, 0);
    assert_eq!(b.read(CAPABILITIES), 0x0098_9680_8086_A201);
}

#[test]
fn registers_are_reached_whole_and_in_halves() {
    let b = bench();
    let dword = AccessWidth::Dword;
    assert_eq!(b.hpet.read_mmio(4, dword), Some(10_000_000));
    assert!(b.hpet.write_mmio(MAIN_COUNTER + 4, dword, 0x1234));
    assert!(b.hpet.write_mmio(MAIN_COUNTER, dword, 0x5678));
    assert_eq!(b.read(MAIN_COUNTER), 0x1234_0000_5678);
    assert_eq!(b.hpet.read_mmio(MAIN_COUNTER + 1, AccessWidth::Byte), Some(0x56));
    assert_eq!(b.hpet.read_mmio(MAIN_COUNTER + 2, dword), None);
    assert_eq!(b.hpet.read_mmio(MAIN_COUNTER + 4, AccessWidth::Qword), None);
    assert!(!b.hpet.write_mmio(MAIN_COUNTER, AccessWidth::Word, 0));
    assert!(!b.hpet.write_mmio(MAIN_COUNTER + 2, dword, 0));
    assert_eq!(b.read(MAIN_COUNTER), 0x1234_0000_5678);
}

#[test]
fn the_counter_runs_at_100_mhz_while_enabled() {
    let b = bench();
    b.write(MAIN_COUNTER, u64::MAX - 9);
    b.write(CONFIGURATION, ENABLE);
    b.host.advance(1_000_000_000);
    assert_eq!(b.read(MAIN_COUNTER), 100_000_000 - 10);
    b.write(CONFIGURATION, 0);
    b.run(50);
    assert_eq!(b.read(MAIN_COUNTER), 100_000_000 - 10);
    b.write(CONFIGURATION, ENABLE);
    b.run(50);
    assert_eq!(b.read(MAIN_COUNTER), 100_000_040);
    assert_eq!(b.bank.earliest(), None, "nobody asked for an interrupt");
}

#[test]
fn one_shot_comes_once() {
    let b = bench();
    b.write(config(2), INT | route(21));
    b.write(comparator(2), 20_000);
    assert_eq!(b.bank.earliest(), None, "the counter stands still");
    b.write(CONFIGURATION, ENABLE);
    assert_eq!(b.armed_in(), Some(20_000));
    b.run(19_999);
    assert!(b.lines.rises().is_empty());
    b.run(1);
    assert_eq!(b.lines.rises(), [21]);
    assert_eq!(b.bank.earliest(), None);
    assert_eq!(b.read(INTERRUPT_STATUS), 0, "edges leave no trace");
    b.write(comparator(2), b.read(MAIN_COUNTER));
    assert_eq!(b.lines.rises(), [21], "the present value matches");
    b.write(comparator(2), b.read(MAIN_COUNTER) - 1);
    assert_eq!((b.lines.rises(), b.bank.earliest()), (vec![], None), "a passed one does not");
}

#[test]
fn a_32_bit_comparator_matches_again_when_the_counter_comes_round() {
    let b = bench();
    b.write(config(0), INT | BITS_32 | route(20));
    b.write(MAIN_COUNTER, 0xFFFF_F000);
    b.write(comparator(0), 0xABCD_0000_0010);
    assert_eq!(b.read(comparator(0)), 0x10);
    b.write(CONFIGURATION, ENABLE);
    assert_eq!(b.armed_in(), Some(0x1010));
    b.run(0x1010);
    assert_eq!((b.lines.rises(), b.armed_in()), (vec![20], Some(1 << 32)));
    b.run(1 << 32);
    assert_eq!(b.lines.rises(), [20]);
}

#[test]
fn periods_are_exact_and_missed_ones_count_as_one() {
    let b = bench();
    b.write(config(1), INT | PERIODIC | SET_VALUE | route(22));
    b.write(comparator(1), 50_000);
    assert_eq!(b.read(config(1)) & SET_VALUE, 0);
    b.write(comparator(1), 30_000);
    assert_eq!(b.read(comparator(1)), 50_000);
    b.write(CONFIGURATION, ENABLE);
    b.run(50_000);
    assert_eq!((b.lines.rises(), b.read(comparator(1))), (vec![22], 80_000));
    b.run(30_000 * 10);
    assert_eq!((b.lines.rises().len(), b.read(comparator(1))), (10, 380_000));
    b.host.advance(100_000 * TICK_NS);
    b.bank.expire(b.hpet.clock.now());
    assert_eq!((b.lines.rises().len(), b.read(comparator(1))), (1, 470_000));
    assert_eq!(b.armed_in(), Some(20_000));
    b.write(config(1), PERIODIC | route(22));
    assert_eq!(b.bank.earliest(), None);
}

#[test]
fn short_periods_do_not_keep_the_host_busy() {
    let b = bench();
    b.write(config(0), INT | PERIODIC | SET_VALUE | route(20));
    b.write(comparator(0), 1);
    b.write(CONFIGURATION, ENABLE);
    b.run(100_000_000);
    let rises = b.lines.rises().len();
    assert!((9_000..=10_001).contains(&rises), "{rises} interrupts in a second");
}

#[test]
fn level_interrupts_wait_for_their_acknowledgement() {
    let b = bench();
    b.write(config(0), LEVEL | INT | PERIODIC | SET_VALUE | route(23));
    b.write(comparator(0), 20_000);
    b.write(CONFIGURATION, ENABLE);
    b.run(20_000);
    assert_eq!((b.lines.rises(), b.read(INTERRUPT_STATUS)), (vec![23], 1));
    assert_eq!(b.bank.earliest(), None, "it waits already");
    b.write(INTERRUPT_STATUS, 0b110);
    assert_eq!(b.read(INTERRUPT_STATUS), 1);
    b.run(30_000);
    b.write(INTERRUPT_STATUS, 1);
    assert_eq!((b.read(INTERRUPT_STATUS), b.armed_in()), (0, Some(10_000)));
    b.run(10_000);
    assert_eq!(b.lines.rises(), [23]);
    b.write(CONFIGURATION, 0);
    assert_eq!(b.lines.0.lock().unwrap().last(), Some(&(23, false)));
    assert_eq!(b.read(INTERRUPT_STATUS), 1, "halting keeps the status");
    b.write(config(0), INT | route(23));
    assert_eq!(b.read(INTERRUPT_STATUS), 0);
}

#[test]
fn a_masked_level_comparator_shows_in_the_status_without_a_timer() {
    let b = bench();
    b.write(config(2), LEVEL | route(20));
    b.write(comparator(2), 500);
    b.write(CONFIGURATION, ENABLE);
    assert_eq!(b.bank.earliest(), None);
    b.run(499);
    assert_eq!(b.read(INTERRUPT_STATUS), 0);
    b.run(1);
    assert_eq!((b.read(INTERRUPT_STATUS), b.lines.rises()), (0b100, vec![]));
    b.write(config(2), LEVEL | INT | route(20));
    assert_eq!(b.lines.rises(), [20]);
}

#[test]
fn routes_that_do_not_exist_are_not_taken() {
    let b = bench();
    b.write(config(0), INT | route(2));
    assert_eq!(b.read(config(0)) & route(31), 0);
    b.write(config(0), INT | route(20));
    b.write(config(0), INT | route(31));
    assert_eq!(b.read(config(0)) & route(31), route(20));
    b.write(config(1), INT);
    b.write(comparator(1), 10);
    b.write(CONFIGURATION, ENABLE);
    assert_eq!(b.bank.earliest(), None);
    b.run(100);
    assert!(b.lines.rises().is_empty());
}

#[test]
fn legacy_replacement_takes_irq_0_and_8() {
    let b = bench();
    let (pit, rtc) = (b.replacement.pit_line(), b.replacement.rtc_line());
    pit.pulse();
    rtc.set(true);
    assert_eq!(b.lines.rises(), [0, 8]);
    for timer in 0..2 {
        b.write(config(timer), INT | route(20));
        b.write(comparator(timer), 100 + timer);
    }
    b.write(config(2), INT | route(22));
    b.write(comparator(2), 102);
    b.write(CONFIGURATION, ENABLE | LEGACY);
    pit.pulse();
    b.run(102);
    assert_eq!(b.lines.rises(), [0, 8, 22]);
    b.write(comparator(1), 200);
    b.write(CONFIGURATION, ENABLE);
    assert_eq!(b.lines.rises(), [8], "the RTC still asks");
    b.run(200);
    pit.pulse();
    assert_eq!(b.lines.rises(), [20, 0]);
}

#[test]
fn a_restored_block_goes_on() {
    let b = bench();
    b.write(config(0), INT | PERIODIC | SET_VALUE);
    b.write(comparator(0), 40_000);
    b.write(config(2), LEVEL | INT | route(21));
    b.write(comparator(2), 10_000);
    b.write(CONFIGURATION, ENABLE | LEGACY);
    b.run(30_000);
    let other = bench();
    other.run(30_000);
    other.replacement.pit_line().set(true);
    other.lines.rises();
    other.hpet.restore(through_json(&b.hpet.save()));
    assert_eq!(other.lines.rises(), [21]);
    assert_eq!(other.read(MAIN_COUNTER), 30_000);
    other.run(10_000);
    assert_eq!(other.lines.rises(), [0]);
    assert_eq!(other.hpet.save().timers[0], {
        b.run(10_000);
        b.hpet.save().timers[0]
    });
}

/// The comparator as the specification describes it: looked at in every tick.
struct Model {
    counter: u64,
    comparator: u64,
    increment: u64,
    width: u64,
    periodic: bool,
    matches: u64,
}

impl Model {
    fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.counter = self.counter.wrapping_add(1);
            self.look();
        }
    }

    fn look(&mut self) {
        if (self.counter ^ self.comparator) & self.width == 0 {
            self.matches += 1;
            if self.periodic {
                self.comparator = self.comparator.wrapping_add(self.increment) & self.width;
            }
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_comparator_that_looks_at_every_tick(
        wide: bool,
        periodic: bool,
        start in 0u64..3000,
        ahead in 1u64..3000,
        increment in 1u64..2000,
        steps in prop::collection::vec(1u64..1500, 1..12),
    ) {
        let b = bench();
        let width = if wide { u64::MAX } else { u64::from(u32::MAX) };
        let counter = width.wrapping_sub(start);
        let first = counter.wrapping_add(ahead) & width;
        let mode = if periodic { PERIODIC | SET_VALUE } else { 0 };
        b.write(config(1), LEVEL | mode | if wide { 0 } else { BITS_32 });
        b.write(MAIN_COUNTER, counter);
        b.write(comparator(1), first);
        if periodic {
            b.write(comparator(1), increment);
        }
        b.write(CONFIGURATION, ENABLE);
        let mut model =
            Model { counter, comparator: first, increment, width, periodic, matches: 0 };
        for ticks in steps {
            let before = model.matches;
            model.run(ticks);
            b.run(ticks);
            prop_assert_eq!(b.read(MAIN_COUNTER), model.counter);
            prop_assert_eq!(b.read(comparator(1)), model.comparator);
            prop_assert_eq!(b.read(INTERRUPT_STATUS) != 0, model.matches != before);
            b.write(INTERRUPT_STATUS, 0xFF);
        }
    }

    #[test]
    fn no_sequence_of_accesses_panics(
        steps in prop::collection::vec((0u8..5, 0u64..0x80, any::<u64>(), any::<u64>()), 0..200)
    ) {
        let b = bench();
        for (what, register, value, time) in steps {
            let register = register * 8 % Hpet::BYTES;
            let value = value >> (time & 0x3F);
            match what {
                0 => drop(b.read(register)),
                1 => b.write(register, value),
                2 => {
                    b.hpet.write_mmio(register | 4, AccessWidth::Dword, value);
                }
                3 => b.host.advance(time >> (value & 0x3F)),
                _ => b.bank.expire(b.hpet.clock.now()),
            }
            let now = b.hpet.clock.now();
            let late = b.bank.earliest().is_some_and(|at| at.0 / TICK_NS < now.0 / TICK_NS);
            prop_assert!(!late || what >= 3);
        }
    }
}
