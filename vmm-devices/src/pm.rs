// SPDX-License-Identifier: MIT OR Apache-2.0
//! ACPI fixed hardware: PM1 event and control registers and the PM timer (ACPI 6.5, 4.8.3).
//!
//! The machine is in ACPI mode from the start (there is no SMI command port) and knows one
//! sleep state, S5. The timer counts by itself: an interrupt of the host is asked for only
//! while the guest has its overflow event enabled.

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};
use spin::Mutex;
use vmm_core::{
    AccessWidth, EndReason, IrqLine, NANOSECONDS, PortDevice, Timer, TimerClient, VmClock,
    VmControl, VmInstant, scale,
};

/// First port of the block.
pub const PM_BASE: u16 = 0x600;
/// Number of ports of the block.
pub const PM_PORTS: u16 = BLOCK as u16;
/// Port of the PM1a event block: status, then enable.
pub const PM1_EVENT_PORT: u16 = PM_BASE;
/// Port of the PM1a control register.
pub const PM1_CONTROL_PORT: u16 = PM_BASE + CONTROL as u16;
/// Port of the 32-bit PM timer.
pub const PM_TIMER_PORT: u16 = PM_BASE + TIMER as u16;
/// Sleep type that means S5 on this platform.
pub const SLEEP_TYPE_S5: u8 = 5;
/// Frequency of the PM timer in hertz (ACPI 6.5, 4.8.1.4).
pub const PM_TIMER_HZ: u64 = 3_579_545;

const STATUS: usize = 0;
const ENABLE: usize = 2;
const CONTROL: usize = 4;
const TIMER: usize = 8;
const BLOCK: usize = 12;

/// The overflow event comes whenever bit 31 of the counter changes.
const OVERFLOW_TICKS: u64 = 1 << 31;

/// Status and enable: the timer has overflown.
const TMR: u16 = 1 << 0;
/// Enable: the firmware has released the global lock. There is no firmware that could.
const GBL: u16 = 1 << 5;
/// Enable: the power and sleep buttons; ACPI's fixed ones do not exist here.
const BUTTONS: u16 = 1 << 8 | 1 << 9;
/// Enable: the wake alarm of the RTC.
const RTC: u16 = 1 << 10;
const ENABLE_DEFINED: u16 = TMR | GBL | BUTTONS | RTC;

const SCI_EN: u16 = 1 << 0;
const BM_RLD: u16 = 1 << 1;
const SLP_TYP_SHIFT: u32 = 10;
const SLP_TYP: u16 = 7 << SLP_TYP_SHIFT;
const SLP_EN: u16 = 1 << 13;
const CONTROL_STORED: u16 = BM_RLD | SLP_TYP;

/// What is to be saved of a [`PmBlock`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PmState {
    /// PM1 enable register.
    pub enable: u16,
    /// PM1 control register without SCI_EN, which is always set.
    pub control: u16,
    /// How many overflows of the timer, counted from the VM's creation, the guest has
    /// acknowledged.
    pub overflows_seen: u64,
}

/// The PM1 event and control registers and the PM timer.
pub struct PmBlock {
    clock: VmClock,
    control: VmControl,
    sci: IrqLine,
    timer: Timer,
    state: Mutex<PmState>,
}

impl TimerClient for PmBlock {
    fn timer_expired(&self, now: VmInstant) {
        self.refresh(&self.state.lock(), now);
    }
}

impl PmBlock {
    /// A block whose interrupt is `sci`; `timer` becomes its own.
    pub fn new(clock: VmClock, control: VmControl, sci: IrqLine, timer: Timer) -> Arc<Self> {
        let block =
            Arc::new(Self { clock, control, sci, timer: timer.clone(), state: Mutex::default() });
        timer.connect(block.clone());
        block
    }

    /// Takes the state out.
    pub fn save(&self) -> PmState {
        *self.state.lock()
    }

    /// Puts a state back.
    pub fn restore(&self, saved: PmState) {
        let PmState { enable, control, overflows_seen } = saved;
        let mut state = self.state.lock();
        *state = PmState {
            enable: enable & ENABLE_DEFINED,
            control: control & CONTROL_STORED,
            overflows_seen,
        };
        self.refresh(&state, self.clock.now());
    }

    /// Brings the interrupt line and the host's timer into line with the registers.
    fn refresh(&self, state: &PmState, now: VmInstant) {
        let pending = state.status(now);
        self.sci.set(pending & state.enable != 0);
        if state.enable & TMR != 0 && pending & TMR == 0 {
            self.timer.arm(next_overflow(now));
        } else {
            self.timer.cancel();
        }
    }

    fn sleep(&self, control: u16) {
        if (control & SLP_TYP) >> SLP_TYP_SHIFT == u16::from(SLEEP_TYPE_S5) {
            self.control.end(EndReason::PowerOff);
        }
    }
}

impl PmState {
    fn status(&self, now: VmInstant) -> u16 {
        if overflows(now) > self.overflows_seen { TMR } else { 0 }
    }

    /// All registers at one moment.
    fn registers(&self, now: VmInstant) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[STATUS..ENABLE].copy_from_slice(&self.status(now).to_le_bytes());
        block[ENABLE..CONTROL].copy_from_slice(&self.enable.to_le_bytes());
        let control = self.control | SCI_EN;
        block[CONTROL..CONTROL + 2].copy_from_slice(&control.to_le_bytes());
        block[TIMER..].copy_from_slice(&(ticks(now) as u32).to_le_bytes());
        block
    }

    /// Writes the bytes of `value` that `mask` selects into the register at `register`.
    /// Returns the value of the control register if it asks for sleep.
    fn write(&mut self, register: usize, value: u16, mask: u16, now: VmInstant) -> Option<u16> {
        let merge = |old: u16| old & !mask | value & mask;
        match register {
            STATUS if value & mask & TMR != 0 => self.overflows_seen = overflows(now),
            ENABLE => self.enable = merge(self.enable) & ENABLE_DEFINED,
            CONTROL => {
                self.control = merge(self.control) & CONTROL_STORED;
                return (value & mask & SLP_EN != 0).then_some(self.control);
            }
            _ => {}
        }
        None
    }
}

impl PortDevice for PmBlock {
    fn name(&self) -> &str {
        "ACPI power management"
    }

    fn widest(&self) -> AccessWidth {
        AccessWidth::Dword
    }

    fn read_port(&self, offset: u16, width: AccessWidth) -> Option<u32> {
        let start = usize::from(offset);
        let block = self.state.lock().registers(self.clock.now());
        let mut value = [0; 4];
        let bytes = width.bytes().min(value.len());
        value[..bytes].copy_from_slice(block.get(start..start + bytes)?);
        Some(u32::from_le_bytes(value))
    }

    fn write_port(&self, offset: u16, width: AccessWidth, value: u32) -> bool {
        let start = usize::from(offset);
        let bytes = width.bytes().min(4);
        if start + bytes > BLOCK {
            return false;
        }
        let now = self.clock.now();
        let mut state = self.state.lock();
        // A write may span registers; each gets the bytes that are its own, in one piece.
        let mut sleep = None;
        for register in [STATUS, ENABLE, CONTROL] {
            let shift = (register as i32 - start as i32) * 8;
            let mask = u32::try_from(width.all_ones()).unwrap_or(u32::MAX);
            let (value, mask) = (shifted(value, shift), shifted(mask, shift));
            if mask != 0 {
                sleep = sleep.or(state.write(register, value, mask, now));
            }
        }
        self.refresh(&state, now);
        drop(state);
        if let Some(control) = sleep {
            self.sleep(control);
        }
        true
    }
}

/// The 16 bits of `value` that start at bit `shift`, which may lie outside of it.
fn shifted(value: u32, shift: i32) -> u16 {
    let wide = u64::from(value) << 32;
    let shift = shift + 32;
    if (0..64).contains(&shift) { (wide >> shift) as u16 } else { 0 }
}

fn ticks(now: VmInstant) -> u64 {
    scale(now.0, PM_TIMER_HZ, NANOSECONDS)
}

fn overflows(now: VmInstant) -> u64 {
    ticks(now) / OVERFLOW_TICKS
}

/// The first moment at which bit 31 of the timer has changed again.
fn next_overflow(now: VmInstant) -> VmInstant {
    let tick = (overflows(now) + 1).saturating_mul(OVERFLOW_TICKS);
    VmInstant(scale(tick, NANOSECONDS, PM_TIMER_HZ)).after(1)
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicBool, Ordering};

    use host_iface::Host;
    use host_mock::MockHost;
    use proptest::prelude::*;
    use vmm_core::{Doorbell, InterruptInputs, TimerBank};

    use super::*;

    #[derive(Default)]
    struct Line(AtomicBool);

    impl InterruptInputs for Line {
        fn set_input(&self, input: u32, asserted: bool) {
            assert_eq!(input, 9);
            self.0.store(asserted, Ordering::SeqCst);
        }
    }

    struct Fixture {
        host: &'static MockHost,
        clock: VmClock,
        bank: Arc<TimerBank>,
        control: VmControl,
        line: Arc<Line>,
        block: Arc<PmBlock>,
    }

    impl Fixture {
        fn new() -> Self {
            let host = MockHost::leak(1);
            let clock = VmClock::start(host);
            let bank = TimerBank::new(Doorbell::disconnected());
            let control = VmControl::new();
            let line = Arc::new(Line::default());
            let sci = IrqLine::new(line.clone(), 9);
            let timer = Timer::new(&bank, 0).unwrap();
            let block = PmBlock::new(clock, control.clone(), sci, timer);
            Self { host, clock, bank, control, line, block }
        }

        fn advance(&self, nanoseconds: u64) {
            let hz = self.host.tsc_frequency().0;
            self.host.advance(scale(nanoseconds, hz, NANOSECONDS));
            self.bank.expire(self.clock.now());
        }

        fn advance_to_armed_timer(&self) {
            let at = self.bank.earliest().expect("the timer is armed");
            self.advance(at.since(self.clock.now()) + 1_000);
        }

        fn read(&self, offset: u16, width: AccessWidth) -> u32 {
            self.block.read_port(offset, width).unwrap()
        }

        fn write(&self, offset: u16, width: AccessWidth, value: u32) {
            assert!(self.block.write_port(offset, width, value));
        }

        fn sci(&self) -> bool {
            self.line.0.load(Ordering::SeqCst)
        }
    }

    use AccessWidth::{Byte, Dword, Word};

    #[test]
    fn timer_counts_at_its_frequency() {
        let f = Fixture::new();
        assert_eq!(f.read(8, Dword), 0);
        f.advance(NANOSECONDS);
        let after_second = f.read(8, Dword);
        assert!(after_second.abs_diff(PM_TIMER_HZ as u32) <= 1, "{after_second}");
        f.advance(2_000 * NANOSECONDS);
        let expected = (2_001 * PM_TIMER_HZ) as u32;
        assert!(f.read(8, Dword).abs_diff(expected) <= 1, "the counter wraps at 32 bits");
    }

    #[test]
    fn overflow_is_seen_without_any_timer_unless_enabled() {
        let f = Fixture::new();
        assert_eq!(f.bank.earliest(), None);
        f.advance(599 * NANOSECONDS);
        assert_eq!(f.read(0, Word), 0);
        f.advance(2 * NANOSECONDS);
        assert_eq!(f.read(0, Word), u32::from(TMR));
        assert_eq!(f.bank.earliest(), None);
        f.write(0, Word, u32::from(TMR));
        assert_eq!(f.read(0, Word), 0);
    }

    #[test]
    fn enabled_overflow_raises_sci_once_per_overflow() {
        let f = Fixture::new();
        f.write(2, Word, u32::from(TMR));
        for _ in 0..3 {
            assert!(!f.sci());
            f.advance_to_armed_timer();
            assert!(f.sci());
            assert_eq!(f.bank.earliest(), None);
            f.write(0, Byte, 0xFE);
            assert!(f.sci());
            f.write(0, Byte, 1);
        }
        f.write(2, Word, 0);
        assert_eq!(f.bank.earliest(), None);
    }

    #[test]
    fn status_and_enable_in_one_write() {
        let f = Fixture::new();
        f.advance(601 * NANOSECONDS);
        f.write(0, Dword, 0x0121_0000);
        assert_eq!(f.read(0, Dword), 0x0121_0001);
        assert!(f.sci());
        f.write(0, Dword, 0x0020_0001);
        assert_eq!(f.read(0, Dword), 0x0020_0000);
        assert!(!f.sci());
    }

    #[test]
    fn s5_powers_off_by_word_or_byte() {
        for by_byte in [false, true] {
            let f = Fixture::new();
            assert_eq!(f.read(4, Word), u32::from(SCI_EN));
            let s5 = u32::from(SLEEP_TYPE_S5) << SLP_TYP_SHIFT;
            f.write(4, Word, s5);
            f.write(4, Word, u32::from(SLP_EN) | 1 << SLP_TYP_SHIFT);
            assert_eq!(f.control.ended(), None);
            if by_byte {
                f.write(5, Byte, (s5 | u32::from(SLP_EN)) >> 8);
            } else {
                f.write(4, Word, s5 | u32::from(SLP_EN));
            }
            assert_eq!(f.control.ended(), Some(&EndReason::PowerOff));
            assert_eq!(f.read(4, Word), s5 | u32::from(SCI_EN), "SLP_EN reads as zero");
        }
    }

    #[test]
    fn state_survives_the_round_trip() {
        let f = Fixture::new();
        f.write(2, Word, u32::from(TMR | GBL));
        f.advance(601 * NANOSECONDS);
        f.write(0, Word, 1);
        let saved = f.block.save();
        assert_eq!(saved, PmState { enable: TMR | GBL, control: 0, overflows_seen: 1 });
        f.block.restore(PmState { overflows_seen: 0, ..saved });
        assert!(f.sci());
        f.block.restore(PmState { enable: 0xFFFF, control: 0xFFFF, overflows_seen: u64::MAX });
        assert_eq!(f.read(2, Word), u32::from(ENABLE_DEFINED));
    }

    #[test]
    fn block_does_not_outlive_its_owner() {
        let f = Fixture::new();
        f.write(2, Word, u32::from(TMR));
        let weak = Arc::downgrade(&f.block);
        let Fixture { block, bank, .. } = f;
        drop(block);
        assert!(weak.upgrade().is_none());
        bank.expire(VmInstant(u64::MAX - 1));
    }

    proptest! {
        #[test]
        fn wide_accesses_equal_their_bytes(
            offset in 0u16..16,
            width in prop::sample::select(vec![Byte, Word, Dword]),
            value: u32,
        ) {
            let value = value & !(u32::from(SLP_EN) * 0x1_0001) & !0x2020_2020;
            let (whole, split) = (Fixture::new(), Fixture::new());
            let bytes = width.bytes() as u16;
            let accepted = whole.block.write_port(offset, width, value);
            prop_assert_eq!(accepted, offset + bytes <= PM_PORTS);
            if accepted {
                for i in 0..bytes {
                    split.write(offset + i, Byte, value >> (8 * i) & 0xFF);
                }
                prop_assert_eq!(whole.block.save(), split.block.save());
                let read: u32 = (0..bytes).map(|i| split.read(offset + i, Byte) << (8 * i)).sum();
                prop_assert_eq!(whole.read(offset, width), read);
            } else {
                prop_assert_eq!(whole.block.read_port(offset, width), None);
            }
        }
    }
}
