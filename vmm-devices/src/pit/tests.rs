// SPDX-License-Identifier: MIT OR Apache-2.0
use host_mock::MockHost;
use proptest::prelude::*;
use vmm_core::{Doorbell, TimerBank};

use super::*;
use crate::test_support::{LineProbe, through_json};

struct Bench {
    host: &'static MockHost,
    bank: Arc<TimerBank>,
    line: Arc<LineProbe>,
    pit: Arc<Pit>,
}

fn bench() -> Bench {
    let host = MockHost::leak(1);
    let bank = TimerBank::new(Doorbell::disconnected());
    let line = Arc::new(LineProbe::default());
    let timer = Timer::new(&bank, 0).unwrap();
    let pit = Pit::new(VmClock::start(host), timer, line.line());
    Bench { host, bank, line, pit }
}

impl Bench {
    fn now(&self) -> VmInstant {
        self.pit.clock.now()
    }

    fn tick(&self) -> u64 {
        ticks_at(self.now())
    }

    /// Moves the clock to `tick` without serving timers.
    fn stall_until(&self, tick: u64) {
        self.host.advance(moment_of(tick).since(self.now()));
        assert_eq!(self.tick(), tick);
    }

    /// Moves the clock to `tick`, serving timers on the way.
    fn run_until(&self, tick: u64) {
        while let Some(at) = self.bank.earliest().filter(|&at| at <= moment_of(tick)) {
            self.host.advance(at.since(self.now()));
            self.bank.expire(self.now());
        }
        self.stall_until(tick);
    }

    fn read(&self, port: u16) -> u8 {
        self.pit.read_byte(port).unwrap()
    }

    fn write(&self, port: u16, value: u8) {
        assert!(self.pit.write_byte(port, value));
    }

    /// Writes control word and count with both bytes.
    fn program(&self, channel: u8, mode: u8, count: u16) {
        self.write(CONTROL, channel << 6 | 0x30 | mode << 1);
        count.to_le_bytes().iter().for_each(|&b| self.write(0x40 + u16::from(channel), b));
    }

    fn count(&self, channel: u8) -> u16 {
        self.write(CONTROL, channel << 6);
        let port = 0x40 + u16::from(channel);
        u16::from_le_bytes([self.read(port), self.read(port)])
    }

    fn status(&self, channel: u8) -> u8 {
        self.write(CONTROL, 0xE0 | 2 << channel);
        self.read(0x40 + u16::from(channel))
    }

    fn edges(&self) -> u32 {
        self.line.take_rises()
    }
}

#[test]
fn the_input_clock_is_exact() {
    assert_eq!(ticks_at(VmInstant(88_000)), 105);
    assert_eq!(ticks_at(VmInstant(88 * 1_000_000_000)), 105_000_000);
    for ticks in (0..2000).chain([u64::from(u32::MAX), 1 << 50]) {
        let moment = moment_of(ticks);
        assert_eq!(ticks_at(moment), ticks);
        assert!(ticks == 0 || ticks_at(VmInstant(moment.0 - 1)) < ticks);
    }
}

#[test]
fn an_unprogrammed_timer_is_silent() {
    let b = bench();
    b.run_until(1_000_000);
    assert_eq!((b.edges(), b.bank.earliest()), (0, None));
}

#[test]
fn mode_0_interrupts_once_and_holds_the_line() {
    let b = bench();
    b.program(0, 0, 1000);
    b.run_until(999);
    assert_eq!((b.edges(), b.count(0), b.status(0)), (0, 1, 0x30));
    b.run_until(1000);
    assert_eq!((b.edges(), b.count(0), b.status(0)), (1, 0, 0xB0));
    assert!(b.line.asserted());
    assert_eq!(b.bank.earliest(), None);
    b.stall_until(1001);
    assert_eq!(b.count(0), 0xFFFF);
    b.write(CONTROL, 0x30);
    assert!(!b.line.asserted());
    assert_eq!(b.bank.earliest(), None);
}

#[test]
fn mode_0_stops_at_the_first_byte_of_a_new_count() {
    let b = bench();
    b.program(0, 0, 1000);
    b.write(0x40, 0x10);
    assert_eq!(b.bank.earliest(), None);
    b.write(0x40, 0);
    b.run_until(16);
    assert_eq!(b.edges(), 1);
}

#[test]
fn mode_2_keeps_its_period_without_drift() {
    let b = bench();
    b.stall_until(7);
    b.program(0, 2, 4773);
    b.run_until(7 + 4773 * 250);
    assert_eq!(b.edges(), 250);
    assert_eq!(b.bank.earliest(), Some(moment_of(7 + 4773 * 251)));
    assert_eq!((b.count(0), b.status(0)), (4773, 0xB4));
    b.stall_until(7 + 4773 * 250 + 4772);
    assert_eq!((b.count(0), b.status(0)), (1, 0x34));
}

#[test]
fn periods_missed_in_a_stall_count_as_one() {
    let b = bench();
    b.program(0, 2, 1000);
    b.stall_until(10_500);
    b.bank.expire(b.now());
    assert_eq!((b.edges(), b.bank.earliest()), (1, Some(moment_of(11_000))));
}

#[test]
fn an_edge_that_is_due_comes_before_the_access_that_would_undo_it() {
    let b = bench();
    b.program(0, 2, 1000);
    b.stall_until(1001);
    b.write(CONTROL, 0x30);
    assert_eq!((b.edges(), b.bank.earliest()), (1, None));
}

#[test]
fn switching_off_disarms_the_timer() {
    let b = bench();
    b.program(0, 2, 1000);
    assert!(b.bank.earliest().is_some());
    b.write(CONTROL, 0x30);
    assert_eq!(b.bank.earliest(), None);
    b.run_until(100_000);
    assert_eq!(b.edges(), 0);
    // As Linux does it, with a last count of 65536.
    b.program(0, 0, 0);
    b.run_until(400_000);
    assert_eq!((b.edges(), b.bank.earliest()), (1, None));
}

#[test]
fn modes_that_the_gate_triggers_do_nothing_on_channel_0() {
    for mode in [1, 5] {
        let b = bench();
        b.program(0, mode, 100);
        b.run_until(1000);
        assert_eq!((b.edges(), b.bank.earliest()), (0, None));
        assert_eq!(b.status(0), 0xF0 | mode << 1);
    }
}

#[test]
fn a_new_count_waits_for_the_end_of_the_period() {
    let b = bench();
    b.program(0, 2, 1000);
    b.run_until(300);
    [100, 0].iter().for_each(|&byte| b.write(0x40, byte));
    assert_eq!((b.count(0), b.status(0)), (700, 0xF4));
    b.run_until(999);
    assert_eq!(b.edges(), 0);
    b.run_until(1250);
    assert_eq!((b.edges(), b.count(0), b.status(0)), (3, 50, 0xB4));
}

#[test]
fn mode_3_is_a_square_wave() {
    for count in [10u16, 11] {
        let b = bench();
        b.program(0, 3, count);
        let high = count.div_ceil(2);
        let seen: Vec<(u16, bool)> = (0..u64::from(count))
            .map(|t| {
                b.run_until(t);
                (b.count(0), b.status(0) & 0x80 != 0)
            })
            .collect();
        let expected: Vec<(u16, bool)> = (0..count)
            .map(|t| if t < high { (t, true) } else { (t - high, false) })
            .map(|(into, out)| ((count & !1) - 2 * into, out))
            .collect();
        assert_eq!(seen, expected);
        let b = bench();
        b.program(0, 3, count * 100);
        b.run_until(u64::from(count) * 300);
        assert_eq!(b.edges(), 3);
    }
}

#[test]
fn mode_4_strobes_once_per_count() {
    let b = bench();
    b.program(0, 4, 500);
    b.run_until(500);
    assert_eq!((b.edges(), b.status(0)), (0, 0x38));
    b.run_until(501);
    assert_eq!((b.edges(), b.status(0)), (1, 0xB8));
    assert_eq!(b.bank.earliest(), None);
    [0xF4, 0x01].iter().for_each(|&byte| b.write(0x40, byte));
    b.run_until(5000);
    assert_eq!((b.edges(), b.bank.earliest()), (1, None));
}

#[test]
fn latched_values_wait_to_be_read() {
    let b = bench();
    b.program(0, 2, 0x1234);
    b.write(CONTROL, 0xC2);
    b.stall_until(0x100);
    b.write(CONTROL, 0x00);
    assert_eq!([b.read(0x40), b.read(0x40), b.read(0x40)], [0xB4, 0x34, 0x12]);
    assert_eq!([b.read(0x40), b.read(0x40)], [0x34, 0x11]);
    b.write(CONTROL, 0xD8);
    assert_eq!([b.read(0x40), b.read(0x40)], [0x34, 0x11]);
    // The command was for channel 2, which has not been programmed.
    assert_eq!([b.read(0x42), b.read(0x42)], [0, 0]);
}

#[test]
fn single_bytes_are_moved_as_programmed() {
    let b = bench();
    b.write(CONTROL, 0x14);
    b.write(0x40, 100);
    b.stall_until(40);
    assert_eq!([b.read(0x40), b.read(0x40)], [60, 60]);
    b.write(CONTROL, 0x24);
    b.write(0x40, 2);
    assert_eq!(b.read(0x40), 2);
    b.stall_until(40 + 1);
    assert_eq!(b.read(0x40), 1);
}

#[test]
fn counts_can_be_decimal() {
    let b = bench();
    b.write(CONTROL, 0x31);
    [0x00, 0x10].iter().for_each(|&byte| b.write(0x40, byte));
    b.run_until(1);
    assert_eq!(b.count(0), 0x0999);
    b.run_until(1001);
    assert_eq!((b.edges(), b.count(0)), (1, 0x9999));
    b.program(0, 0, 0);
    b.write(CONTROL, 0x35);
    [0, 0].iter().for_each(|&byte| b.write(0x40, byte));
    let start = b.tick();
    assert_eq!(b.bank.earliest(), Some(moment_of(start + 10_000)));
}

/// How Linux measures its clocks against channel 2.
#[test]
fn channel_2_counts_while_its_gate_is_high() {
    let b = bench();
    assert_eq!(b.read(0x61) & 0x2F, 0);
    b.program(2, 0, 1000);
    b.stall_until(500);
    assert_eq!(b.count(2), 1000);
    b.write(0x61, 0xF1);
    b.stall_until(900);
    assert_eq!((b.count(2), b.read(0x61) & 0x2F), (600, 0x01));
    b.write(0x61, 0);
    b.stall_until(2000);
    assert_eq!(b.count(2), 600);
    b.write(0x61, 1);
    b.stall_until(2600);
    assert_eq!(b.read(0x61) & 0x2F, 0x21);
    assert_eq!(b.bank.earliest(), None);
}

#[test]
fn the_gate_triggers_the_one_shot() {
    let b = bench();
    b.program(2, 1, 100);
    b.write(0x61, 1);
    assert_eq!(b.read(0x61) & OUT_2, 0);
    b.stall_until(50);
    b.write(0x61, 0);
    b.write(0x61, 1);
    b.stall_until(149);
    assert_eq!(b.read(0x61) & OUT_2, 0);
    b.stall_until(150);
    assert_eq!(b.read(0x61) & OUT_2, OUT_2);
}

#[test]
fn the_refresh_bit_toggles() {
    let b = bench();
    let bits: Vec<u8> = (0..4)
        .map(|n| {
            b.stall_until(n * REFRESH_TICKS);
            b.read(0x61) & REFRESH
        })
        .collect();
    assert_eq!(bits, [0, REFRESH, 0, REFRESH]);
}

#[test]
fn the_control_word_cannot_be_read() {
    let b = bench();
    assert_eq!(b.pit.read_byte(CONTROL), None);
    assert_eq!(b.pit.read_byte(0x44), None);
    assert!(!b.pit.write_byte(0x44, 0));
}

#[test]
fn a_restored_timer_goes_on() {
    let b = bench();
    b.program(0, 2, 1000);
    b.run_until(2500);
    let state = through_json(&b.pit.save());
    let other = bench();
    other.stall_until(2500);
    other.pit.restore(state);
    assert_eq!(other.count(0), 500);
    other.run_until(4000);
    assert_eq!(other.edges(), 2);
}

#[test]
fn dropping_the_device_frees_it() {
    let b = bench();
    b.program(0, 2, 1000);
    let device = Arc::downgrade(&b.pit);
    let ports = b.pit.ports();
    drop((b.pit, ports));
    assert!(device.upgrade().is_none());
    b.host.advance(1_000_000_000);
    b.bank.expire(VmInstant(1_000_000_000));
    assert_eq!(b.line.take_rises(), 0);
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics(
        steps in prop::collection::vec((0u8..6, any::<u8>(), any::<u32>()), 0..200)
    ) {
        const PORTS: [u16; 6] = [0x40, 0x41, 0x42, 0x43, 0x61, 0x43];
        let b = bench();
        for (what, value, time) in steps {
            let port = PORTS[usize::from(what)];
            match value & 3 {
                0 => drop(b.pit.read_byte(port)),
                1 => drop(b.pit.write_byte(port, (time >> 8) as u8)),
                2 => b.host.advance(u64::from(time)),
                _ => b.bank.expire(b.now()),
            }
            let armed = b.bank.earliest();
            let edge = b.pit.save().next_edge.map(moment_of);
            prop_assert_eq!(armed.is_some(), edge.is_some());
            prop_assert!(armed >= edge, "an interrupt before its edge");
        }
    }

    #[test]
    fn short_periods_do_not_flood_the_first_vcpu(count in 2u16..119) {
        let b = bench();
        b.program(0, 2, count);
        // A hundredth of a second.
        b.run_until(11_932);
        prop_assert!((90..=101).contains(&b.edges()));
    }

    #[test]
    fn periodic_edges_are_never_lost_nor_doubled(count in 120u16.., periods in 1u64..50) {
        let b = bench();
        b.program(0, 2, count);
        b.run_until(u64::from(count) * periods);
        prop_assert_eq!(u64::from(b.edges()), periods);
    }
}
