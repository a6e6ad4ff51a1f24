// SPDX-License-Identifier: MIT OR Apache-2.0
use host_mock::MockHost;
use proptest::prelude::*;
use vmm_core::{Doorbell, NANOSECONDS, TimerBank};

use super::*;
use crate::test_support::{LineProbe, through_json};

struct Bench {
    host: &'static MockHost,
    bank: Arc<TimerBank>,
    line: Arc<LineProbe>,
    rtc: Arc<Rtc>,
}

/// 2024-02-28T23:59:57.25Z, a Wednesday.
const START: WallClockTime =
    WallClockTime { unix_seconds: 1_709_164_797, nanoseconds: 250_000_000 };

fn bench() -> Bench {
    bench_at(START)
}

fn bench_at(time: WallClockTime) -> Bench {
    let host = MockHost::leak(1);
    let clock = VmClock::start(host);
    host.advance(123_456_789);
    let bank = TimerBank::new(Doorbell::disconnected());
    let line = Arc::new(LineProbe::default());
    let timer = Timer::new(&bank, 3).unwrap();
    let memory = MemoryLayout::of(256 << 20);
    let rtc = Rtc::new(clock, timer, line.line(), time, memory);
    Bench { host, bank, line, rtc }
}

impl Bench {
    /// Moves the clock on, serving timers on the way.
    fn run(&self, nanoseconds: u64) {
        let end = self.rtc.clock.now().after(nanoseconds);
        while let Some(at) = self.bank.earliest().filter(|&at| at <= end) {
            self.host.advance(at.since(self.rtc.clock.now()));
            self.bank.expire(self.rtc.clock.now());
        }
        self.host.advance(end.since(self.rtc.clock.now()));
    }

    fn read(&self, index: u8) -> u8 {
        assert!(self.rtc.write_byte(INDEX, index));
        self.rtc.read_byte(DATA).unwrap()
    }

    fn write(&self, index: u8, value: u8) {
        assert!(self.rtc.write_byte(INDEX, index));
        assert!(self.rtc.write_byte(DATA, value));
    }

    /// Century, year, month, day, hour, minute, second.
    fn time(&self) -> [u8; 7] {
        [0x32, 9, 8, 7, 4, 2, 0].map(|index| self.read(index))
    }

    fn set_time(&self, time: [u8; 7]) {
        [0x32, 9, 8, 7, 4, 2, 0].iter().zip(time).for_each(|(&index, v)| self.write(index, v));
    }

    fn asserted(&self) -> bool {
        self.line.asserted()
    }

    fn rises(&self) -> u32 {
        self.line.take_rises()
    }
}

const SECOND: u64 = NANOSECONDS;

#[test]
fn the_time_is_that_of_the_host_and_moves_on() {
    let b = bench();
    assert_eq!(b.time(), [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x57]);
    assert_eq!(b.read(6), 4);
    b.run(3 * SECOND / 4 - 1);
    assert_eq!(b.read(0), 0x57);
    b.run(1);
    assert_eq!(b.read(0), 0x58);
    b.run(2 * SECOND);
    assert_eq!(b.time(), [0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00]);
    assert_eq!(b.read(6), 5);
    assert_eq!(b.bank.earliest(), None);
}

#[test]
fn registers_come_in_binary_and_in_12_hour_form() {
    let b = bench();
    b.write(0x0B, 0x06);
    assert_eq!(b.time(), [20, 24, 2, 28, 23, 59, 57]);
    b.write(0x0B, 0x00);
    assert_eq!(b.read(4), 0x91);
    b.run(3 * SECOND);
    assert_eq!(b.read(4), 0x12);
}

#[test]
fn update_in_progress_precedes_the_update() {
    let b = bench();
    b.run(3 * SECOND / 4 - 244_001);
    assert_eq!(b.read(0x0A), 0x26);
    b.run(1);
    assert_eq!(b.read(0x0A), 0xA6);
    assert_eq!(b.read(0), 0x57);
    b.run(244_000);
    assert_eq!((b.read(0x0A), b.read(0)), (0x26, 0x58));
    b.write(0x0B, 0x82);
    b.run(SECOND - 1);
    assert_eq!(b.read(0x0A), 0x26);
}

#[test]
fn set_stops_the_calendar_until_the_time_is_set() {
    let b = bench();
    b.write(0x0B, 0x82);
    b.run(10 * SECOND);
    assert_eq!(b.read(0), 0x57);
    b.set_time([0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59]);
    assert_eq!(b.time(), [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59]);
    b.write(0x0B, 0x02);
    b.run(3 * SECOND / 4);
    assert_eq!(b.time(), [0x20, 0, 1, 1, 0, 0, 0]);
}

#[test]
fn the_time_can_be_written_while_it_runs() {
    let b = bench();
    b.write(4, 0x05);
    assert_eq!(b.time(), [0x20, 0x24, 0x02, 0x28, 0x05, 0x59, 0x57]);
    b.run(SECOND);
    assert_eq!(b.read(0), 0x58);
}

/// Linux sets the time with the divider in reset, half a second before it shall hold.
#[test]
fn the_first_update_comes_half_a_second_after_divider_reset() {
    let b = bench();
    b.write(0x0B, 0x82);
    b.write(0x0A, 0x76);
    b.set_time([0x20, 0x30, 0x06, 0x15, 0x12, 0x00, 0x00]);
    b.write(0x0B, 0x02);
    b.run(5 * SECOND);
    assert_eq!(b.read(0), 0);
    b.write(0x0A, 0x26);
    b.run(SECOND / 2 - 1);
    assert_eq!(b.read(0), 0);
    b.run(1);
    assert_eq!(b.time(), [0x20, 0x30, 0x06, 0x15, 0x12, 0x00, 0x01]);
}

#[test]
fn update_ended_interrupts_once_a_second_if_collected() {
    let b = bench();
    b.write(0x0B, 0x12);
    assert!(!b.asserted());
    b.run(3 * SECOND / 4);
    assert!(b.asserted());
    assert_eq!(b.bank.earliest(), None);
    b.run(5 * SECOND);
    assert_eq!(b.rises(), 1);
    // Midnight passed, too, for which the alarm registers stand.
    assert_eq!(b.read(0x0C) & !0x40, 0xB0);
    assert!(!b.asserted());
    assert_eq!(b.read(0x0C), 0);
    b.run(SECOND);
    assert_eq!(b.rises(), 1);
    // Setting the time disables it.
    b.write(0x0B, 0x92);
    assert_eq!(b.read(0x0B), 0x82);
    assert!(!b.asserted());
}

#[test]
fn flags_are_there_without_interrupts() {
    let b = bench();
    b.write(0x0A, 0x20);
    b.read(0x0C);
    assert_eq!(b.read(0x0C), 0);
    b.run(SECOND);
    assert_eq!(b.read(0x0C), 0x10);
    b.write(0x0A, 0x2F);
    b.run(SECOND / 2);
    assert_eq!(b.read(0x0C) & 0x40, 0x40);
    assert_eq!(b.rises(), 0);
}

#[test]
fn periodic_interrupts_have_the_programmed_rate() {
    for (rate, hertz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
        let b = bench();
        b.write(0x0A, 0x20 | rate);
        b.write(0x0B, 0x42);
        let mut seen = 0;
        let end = b.rtc.clock.now().after(4 * SECOND);
        while let Some(at) = b.bank.earliest().filter(|&at| at <= end) {
            b.run(at.since(b.rtc.clock.now()));
            assert!(b.asserted());
            assert_eq!(b.read(0x0C) & 0xC0, 0xC0);
            seen += 1;
        }
        assert_eq!(seen, 4 * hertz, "rate {rate}");
    }
}

#[test]
fn periodic_interrupts_need_rate_and_divider() {
    let b = bench();
    b.write(0x0B, 0x42);
    for a in [0x20, 0x66] {
        b.write(0x0A, a);
        b.read(0x0C);
        assert_eq!(b.bank.earliest(), None);
    }
}

#[test]
fn the_alarm_comes_at_its_time() {
    let b = bench();
    [(5, 0x00), (3, 0x00), (1, 0x02)].iter().for_each(|&(i, v)| b.write(i, v));
    b.write(0x0B, 0x22);
    b.run(4 * SECOND + 3 * SECOND / 4 - 1);
    assert!(!b.asserted());
    b.run(1);
    assert!(b.asserted());
    assert_eq!(b.time()[4..], [0x00, 0x00, 0x02]);
    assert_eq!(b.read(0x0C) & 0xB0, 0xB0);
    b.run(86_400 * SECOND - 1);
    assert_eq!(b.rises(), 1);
    b.run(1);
    assert_eq!(b.rises(), 1);
}

#[test]
fn alarm_fields_can_match_everything() {
    let b = bench();
    [(5, 0xFF), (3, 0xC0), (1, 0x10)].iter().for_each(|&(i, v)| b.write(i, v));
    b.write(0x0B, 0x22);
    b.run(13 * SECOND - SECOND / 4);
    assert_eq!((b.rises(), b.time()[4..].to_vec()), (1, vec![0x00, 0x00, 0x10]));
    b.read(0x0C);
    b.run(60 * SECOND);
    assert_eq!((b.rises(), b.time()[4..].to_vec()), (1, vec![0x00, 0x01, 0x10]));
}

#[test]
fn an_impossible_alarm_never_comes() {
    for alarm in [[0x25, 0, 0], [0, 0x60, 0], [0, 0, 0x60], [0xFF, 0xFF, 0x99]] {
        let b = bench();
        [5, 3, 1].iter().zip(alarm).for_each(|(&index, value)| b.write(index, value));
        b.write(0x0B, 0x22);
        assert_eq!(b.bank.earliest(), None, "{alarm:x?}");
        b.run(200_000 * SECOND);
        assert_eq!(b.read(0x0C) & 0x20, 0, "{alarm:x?}");
    }
}

#[test]
fn an_alarm_without_interrupt_shows_in_its_flag() {
    let b = bench();
    [(5, 0x00), (3, 0x00), (1, 0x00)].iter().for_each(|&(i, v)| b.write(i, v));
    b.run(2 * SECOND);
    assert_eq!(b.read(0x0C) & 0x20, 0);
    b.run(SECOND);
    assert_eq!(b.read(0x0C) & 0x20, 0x20);
    b.run(86_399 * SECOND);
    assert_eq!(b.read(0x0C) & 0x20, 0);
    b.run(3 * 86_400 * SECOND);
    assert_eq!(b.read(0x0C) & 0x20, 0x20);
}

#[test]
fn status_and_memory_registers() {
    let b = bench();
    b.write(0x0D, 0);
    assert_eq!(b.read(0x0D), 0x80);
    b.write(0x0C, 0xFF);
    assert_eq!(b.read(0x0C) & 0xB0, 0);
    b.write(0x0A, 0xFF);
    assert_eq!(b.read(0x0A), 0x7F);
    b.write(0x0F, 0x0A);
    assert_eq!(b.read(0x0F), 0x0A);
    assert_eq!([0x34, 0x35].map(|i| b.read(i)), [0x00, 0x0F]);
    b.write(0x7F, 0x5A);
    assert_eq!(b.read(0xFF), 0x5A);
    assert!(b.rtc.nmi_masked());
    assert_eq!(b.rtc.read_byte(INDEX), None);
}

#[test]
fn an_absurd_host_time_is_capped() {
    let time = WallClockTime { unix_seconds: u64::MAX, nanoseconds: u32::MAX };
    assert_eq!(bench_at(time).time(), [0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59]);
}

#[test]
fn a_restored_clock_goes_on() {
    let b = bench();
    b.write(0x0B, 0x12);
    b.write(0x40, 7);
    b.run(SECOND);
    let other = bench();
    other.run(SECOND);
    other.rtc.restore(through_json(&b.rtc.save()));
    assert!(other.asserted());
    assert_eq!(other.read(0x40), 7);
    assert_eq!(other.time(), b.time());
    other.read(0x0C);
    other.run(SECOND);
    assert!(other.asserted());
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics(
        steps in prop::collection::vec((0u8..4, 0u8..0x40, any::<u8>(), any::<u64>()), 0..200)
    ) {
        let b = bench();
        for (what, index, value, time) in steps {
            let index = if index < 0x20 { index & 0xF } else { index };
            match what {
                0 => drop(b.read(index)),
                1 => b.write(index, value),
                2 => b.host.advance(time >> (value & 0x3F)),
                _ => b.bank.expire(b.rtc.clock.now()),
            }
            let now = b.rtc.clock.now();
            let state = b.rtc.save();
            prop_assert_eq!(state.interrupts(), b.asserted());
            prop_assert!(b.bank.earliest().is_none_or(|at| at > now || what >= 2));
        }
    }
}

/// A clock that was restored with these numbers in its state, and enables its interrupts.
fn restored_with(numbers: &[(&str, i128)]) -> Bench {
    let b = bench();
    b.write(11, 0x72);
    let mut state = serde_json::to_value(b.rtc.save()).unwrap();
    for &(name, value) in numbers {
        let place = state.get_mut(name).expect("a field of the state");
        *place = match u64::try_from(value) {
            Ok(value) => value.into(),
            Err(_) => i64::try_from(value).unwrap().into(),
        };
    }
    b.rtc.restore(serde_json::from_value(state).unwrap());
    let saved = b.rtc.save();
    b.rtc.restore(saved.clone());
    assert_eq!(b.rtc.save(), saved, "it is saved as it was restored");
    b
}

#[test]
fn a_restored_date_that_no_calendar_has_can_be_read() {
    for base in [i64::MIN, i64::MAX] {
        let b = restored_with(&[("base", base.into())]);
        for index in 0..0x80 {
            b.read(index);
        }
    }
}

#[test]
fn a_restored_divider_makes_no_timer_due_for_ever() {
    for phase in [u64::MAX, u64::MAX - NANOSECONDS] {
        let b = restored_with(&[("phase", phase.into())]);
        assert!(b.bank.earliest().is_some_and(|at| at > b.rtc.clock.now()));
    }
}

#[test]
fn a_restored_clock_is_not_ahead_of_time() {
    let b = restored_with(&[("examined", u64::MAX.into()), ("a", 0xA6), ("flags", 0x0F)]);
    assert_eq!(b.read(12), 0, "flags that do not exist");
    assert_eq!(b.read(10), 0x26, "an update that does not end");
    let before = b.read(0);
    b.run(NANOSECONDS);
    assert_ne!(b.read(0), before, "it stands still");
}
