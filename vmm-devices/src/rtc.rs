// SPDX-License-Identifier: MIT OR Apache-2.0
//! The MC146818 real-time clock and its battery-backed memory.

mod civil;
mod cmos;
mod format;
mod state;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::ops::RangeInclusive;

use host_iface::WallClockTime;
use spin::Mutex;
use vmm_core::{IrqLine, Timer, TimerClient, VmClock, VmInstant, memory::MemoryLayout};

use crate::{
    PortRange,
    byte_ports::{BytePorts, port_range},
    deadline::Deadline,
    output_line::OutputLine,
};
use cmos::Cmos;
pub use state::RtcState;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

/// An MC146818 (Motorola data sheet, 1984) with a PC's CMOS memory, which tells firmware and
/// guests how much memory there is.
///
/// The time is that of the host when the device was made, moved on by the VM's clock; what
/// the guest sets it to holds for this VM only. Nothing ticks: registers are computed when
/// they are read. The timer is armed only while an interrupt is enabled that has not
/// occurred yet; events that the guest did not collect by reading register C count as one.
///
/// An update of the registers takes no time; the update-in-progress bit is set for the
/// 244 µs before it. The day of the week follows from the date. Interrupt frequencies are
/// those of the 32,768 Hz crystal.
///
/// Locks are taken in the order clock, interrupt controllers.
pub struct Rtc {
    clock: VmClock,
    inner: Mutex<Inner>,
}

struct Inner {
    state: RtcState,
    output: OutputLine,
    deadline: Deadline,
}

impl Rtc {
    /// Index and data port.
    pub const PORTS: RangeInclusive<u16> = INDEX..=DATA;

    /// A clock that shows `time` now, drives `irq8` and is called by `timer`, in a VM with
    /// `memory`.
    pub fn new(
        clock: VmClock,
        timer: Timer,
        irq8: IrqLine,
        time: WallClockTime,
        memory: MemoryLayout,
    ) -> Arc<Self> {
        let state = RtcState::new(clock.now(), time, Cmos::of(memory));
        let output = OutputLine::new(irq8);
        let deadline = Deadline::new(timer.clone());
        let rtc = Arc::new(Self { clock, inner: Mutex::new(Inner { state, output, deadline }) });
        timer.connect(rtc.clone());
        rtc
    }

    /// The ports to claim.
    pub fn ports(self: &Arc<Self>) -> PortRange {
        port_range(self, &Self::PORTS)
    }

    /// True if the guest asks, by bit 7 of the index port, that NMIs be kept from it.
    pub fn nmi_masked(&self) -> bool {
        self.inner.lock().state.nmi_masked()
    }

    /// Takes the state out.
    pub fn save(&self) -> RtcState {
        self.inner.lock().state.clone()
    }

    /// Puts a state back that was taken by the same VM clock, and arms the timer.
    pub fn restore(&self, state: RtcState) {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        inner.state = state.within_limits(now);
        inner.settle(now);
    }
}

impl Inner {
    /// Notes the events up to now, drives the line and arms the timer for the next event.
    fn settle(&mut self, now: VmInstant) {
        self.state.advance(now);
        self.output.set(self.state.interrupts());
        self.deadline.set(self.state.next_event());
    }
}

impl BytePorts for Rtc {
    fn name(&self) -> &str {
        "rtc"
    }

    fn read_byte(&self, port: u16) -> Option<u8> {
        if port != DATA {
            return None;
        }
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        inner.state.advance(now);
        let value = inner.state.read();
        inner.settle(now);
        Some(value)
    }

    fn write_byte(&self, port: u16, value: u8) -> bool {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        match port {
            INDEX => inner.state.select(value),
            DATA => {
                inner.state.advance(now);
                inner.state.write(value);
                inner.settle(now);
            }
            _ => return false,
        }
        true
    }
}

impl TimerClient for Rtc {
    fn timer_expired(&self, now: VmInstant) {
        let mut inner = self.inner.lock();
        inner.deadline.expired(now);
        inner.settle(now);
    }
}
