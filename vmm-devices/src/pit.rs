// SPDX-License-Identifier: MIT OR Apache-2.0
//! The 8254 programmable interval timer and the port that belongs to it.

mod channel;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use spin::Mutex;
use vmm_core::{IrqLine, Timer, TimerClient, VmClock, VmInstant, scale};

use crate::{
    PortRange,
    byte_ports::{BytePorts, port_range},
    deadline::Deadline,
    output_line::OutputLine,
};
use channel::Channel;

/// Shortest time between two interrupts of a periodic mode. A guest that asks for less would
/// keep its first vCPU busy with interrupts and nothing else; edges in between count as one.
const MINIMUM_PERIOD_NS: u64 = 100_000;

const CONTROL: u16 = 0x43;
const SYSTEM_CONTROL_B: u16 = 0x61;
/// Channel whose gate and output are at port 0x61.
const SPEAKER: usize = 2;

/// Bits of port 0x61.
const GATE_2: u8 = 1 << 0;
const WRITABLE: u8 = 0x0F;
const REFRESH: u8 = 1 << 4;
const OUT_2: u8 = 1 << 5;

/// Half the period of the refresh request bit in ticks: about 15 µs.
const REFRESH_TICKS: u64 = 18;

/// Ticks of the 105/88 MHz input clock before `moment`.
fn ticks_at(moment: VmInstant) -> u64 {
    scale(moment.0, 105, 88_000)
}

/// The first moment at which `ticks` have passed.
fn moment_of(ticks: u64) -> VmInstant {
    let early = VmInstant(scale(ticks, 88_000, 105));
    if ticks_at(early) < ticks { early.after(1) } else { early }
}

/// State of the interval timer. Times are in ticks of its input clock since the VM's clock
/// read zero.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PitState {
    channels: [Channel; 3],
    /// The bits of port 0x61 that software writes.
    system_control: u8,
    /// When channel 0's output will rise.
    next_edge: Option<u64>,
}

/// An 8254 (Intel data sheet, order number 231164) with a PC's wiring: channel 0 drives
/// IRQ 0, channel 2 the speaker port 0x61.
///
/// Nothing ticks: counts are computed from the VM's clock when they are read, at exactly
/// 105/88 MHz (1.193182 MHz). The timer is armed only while channel 0 is programmed such that
/// its output will rise: for each period in modes 2 and 3, once in modes 0 and 4. A count is
/// taken over without the one clock that hardware needs.
///
/// Periods are exact multiples of the count from the moment it was written, so there is no
/// drift. If the guest did not run for several periods, the edges of that time count as one,
/// and the next comes at its regular moment.
///
/// The line rests deasserted between edges, except after terminal count in mode 0.
///
/// Locks are taken in the order interval timer, interrupt controllers.
pub struct Pit {
    clock: VmClock,
    inner: Mutex<Inner>,
}

struct Inner {
    state: PitState,
    output: OutputLine,
    deadline: Deadline,
}

impl Pit {
    /// Counters and control word.
    pub const COUNTER_PORTS: RangeInclusive<u16> = 0x40..=0x43;
    /// System control port B: gate and output of channel 2.
    pub const SYSTEM_CONTROL_PORTS: RangeInclusive<u16> = SYSTEM_CONTROL_B..=SYSTEM_CONTROL_B;

    /// An interval timer that drives `irq0` and is called by `timer`.
    pub fn new(clock: VmClock, timer: Timer, irq0: IrqLine) -> Arc<Self> {
        let state = PitState {
            channels: [Channel::new(true), Channel::new(true), Channel::new(false)],
            system_control: 0,
            next_edge: None,
        };
        let output = OutputLine::new(irq0);
        let deadline = Deadline::new(timer.clone());
        let pit = Arc::new(Self { clock, inner: Mutex::new(Inner { state, output, deadline }) });
        timer.connect(pit.clone());
        pit
    }

    /// The ports to claim.
    pub fn ports(self: &Arc<Self>) -> [PortRange; 2] {
        [Self::COUNTER_PORTS, Self::SYSTEM_CONTROL_PORTS].map(|p| port_range(self, &p))
    }

    /// Takes the state out.
    pub fn save(&self) -> PitState {
        self.inner.lock().state.clone()
    }

    /// Puts a state back that was taken by the same VM clock, and arms the timer.
    pub fn restore(&self, state: PitState) {
        let tick = ticks_at(self.clock.now());
        let mut inner = self.inner.lock();
        inner.state = state;
        let timer = &inner.state.channels[0];
        let held = timer.holds_line_after_edge() && timer.output(tick);
        let held = held && inner.state.next_edge.is_none();
        inner.output.set(held);
        inner.arm();
    }

    /// Brings the state up to now, applies `access`, and arms the timer for what follows.
    fn access<R>(&self, access: impl FnOnce(&mut Inner, u64) -> R) -> R {
        let tick = ticks_at(self.clock.now());
        let mut inner = self.inner.lock();
        inner.advance(tick);
        let result = access(&mut inner, tick);
        inner.arm();
        result
    }
}

impl Inner {
    /// Makes the edge that is due, and takes over counts that were waiting for a period's
    /// end.
    fn advance(&mut self, tick: u64) {
        let Self { state, output, .. } = self;
        state.channels.iter_mut().for_each(|c| c.advance(tick));
        if state.next_edge.is_some_and(|edge| edge <= tick) {
            if state.channels[0].holds_line_after_edge() {
                output.set(true);
            } else {
                output.pulse();
            }
            state.next_edge = state.channels[0].next_edge(tick);
        }
    }

    fn arm(&mut self) {
        self.arm_after(VmInstant::default());
    }

    /// Arms the timer for the next edge, but not before `earliest`.
    fn arm_after(&mut self, earliest: VmInstant) {
        let at = self.state.next_edge.map(|edge| moment_of(edge).max(earliest));
        self.deadline.set(at);
    }

    /// After a write to channel 0: what its output does now, and when it will rise.
    fn reprogrammed(&mut self, tick: u64) {
        self.output.set(false);
        self.state.next_edge = self.state.channels[0].next_edge(tick);
    }

    fn write_control(&mut self, tick: u64, value: u8) {
        let selected = value >> 6;
        if selected == 3 {
            self.read_back(tick, value);
            return;
        }
        let Some(channel) = self.state.channels.get_mut(usize::from(selected)) else { return };
        if value & 0x30 == 0 {
            channel.latch_count(tick);
            return;
        }
        channel.program(value);
        if selected == 0 {
            self.reprogrammed(tick);
        }
    }

    fn read_back(&mut self, tick: u64, command: u8) {
        for (index, channel) in self.state.channels.iter_mut().enumerate() {
            if command >> (index + 1) & 1 == 0 {
                continue;
            }
            if command & 0x20 == 0 {
                channel.latch_count(tick);
            }
            if command & 0x10 == 0 {
                channel.latch_status(tick);
            }
        }
    }

    fn read_system_control(&self, tick: u64) -> u8 {
        let refresh = if (tick / REFRESH_TICKS).is_multiple_of(2) { 0 } else { REFRESH };
        let out = if self.state.channels[SPEAKER].output(tick) { OUT_2 } else { 0 };
        self.state.system_control & WRITABLE | refresh | out
    }
}

impl BytePorts for Pit {
    fn name(&self) -> &str {
        "pit"
    }

    fn read_byte(&self, port: u16) -> Option<u8> {
        self.access(|inner, tick| match port {
            0x40..CONTROL => {
                let channel = inner.state.channels.get_mut(usize::from(port - 0x40))?;
                Some(channel.read(tick))
            }
            SYSTEM_CONTROL_B => Some(inner.read_system_control(tick)),
            _ => None,
        })
    }

    fn write_byte(&self, port: u16, value: u8) -> bool {
        self.access(|inner, tick| {
            match port {
                0x40 => {
                    if inner.state.channels[0].write(tick, value) {
                        inner.reprogrammed(tick);
                    }
                }
                0x41 | 0x42 => {
                    inner.state.channels[usize::from(port & 3)].write(tick, value);
                }
                CONTROL => inner.write_control(tick, value),
                SYSTEM_CONTROL_B => {
                    inner.state.system_control = value & WRITABLE;
                    inner.state.channels[SPEAKER].set_gate(tick, value & GATE_2 != 0);
                }
                _ => return false,
            }
            true
        })
    }
}

impl TimerClient for Pit {
    fn timer_expired(&self, now: VmInstant) {
        let mut inner = self.inner.lock();
        inner.deadline.expired(now);
        inner.advance(ticks_at(now));
        inner.arm_after(now.after(MINIMUM_PERIOD_NS));
    }
}
