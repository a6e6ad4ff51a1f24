// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time as a VM's devices see it.
//!
//! The library owns no clock: time is the host's time-stamp counter, and the only timers are
//! those that a guest armed through a device. All of a VM's device timers are served by its
//! first vCPU, which folds the earliest into the one-shot timer of its CPU.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use host_iface::{Host, Tsc};
use spin::Once;

use crate::{Doorbell, TimerClient};

/// Nanoseconds in a second.
pub const NANOSECONDS: u64 = 1_000_000_000;

/// A moment of a VM's life, in nanoseconds since its creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct VmInstant(pub u64);

impl VmInstant {
    /// The moment `nanoseconds` later; the far end of time if that overflows.
    pub const fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// Nanoseconds since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Multiplies and divides without intermediate overflow; saturates at the top.
pub fn scale(value: u64, multiplier: u64, divisor: u64) -> u64 {
    let wide = u128::from(value) * u128::from(multiplier) / u128::from(divisor.max(1));
    u64::try_from(wide).unwrap_or(u64::MAX)
}

/// The clock of one VM.
#[derive(Clone, Copy)]
pub struct VmClock {
    host: &'static dyn Host,
    origin: Tsc,
    frequency: u64,
}

impl VmClock {
    /// A clock that reads zero now.
    pub fn start(host: &'static dyn Host) -> Self {
        Self { host, origin: host.tsc(), frequency: host.tsc_frequency().0.max(1) }
    }

    /// The moment now.
    pub fn now(&self) -> VmInstant {
        let ticks = self.host.tsc().0.saturating_sub(self.origin.0);
        VmInstant(scale(ticks, NANOSECONDS, self.frequency))
    }

    /// The host time-stamp counter at `moment`, rounded up so that it is not early.
    pub fn tsc_at(&self, moment: VmInstant) -> Tsc {
        let ticks = scale(moment.0, self.frequency, NANOSECONDS).saturating_add(1);
        Tsc(self.origin.0.saturating_add(ticks))
    }

    /// The host time-stamp counter when the clock read zero.
    pub fn origin(&self) -> Tsc {
        self.origin
    }

    /// Frequency of the time-stamp counter in hertz.
    pub fn tsc_hz(&self) -> u64 {
        self.frequency
    }
}

/// Number of device timers a VM can have.
pub const MAX_TIMERS: usize = 16;

const DISARMED: u64 = u64::MAX;

struct Slot {
    /// Deadline in [`VmInstant`] nanoseconds, or [`DISARMED`].
    deadline: AtomicU64,
    /// Weak, because the client holds its timer and with it the bank.
    client: Once<Weak<dyn TimerClient>>,
    /// Serves the host: the guest never hears of it.
    is_hosts: AtomicBool,
}

/// The device timers of one VM.
pub struct TimerBank {
    slots: [Slot; MAX_TIMERS],
    /// A deadline may be another than when the flag was taken. Set behind the deadline.
    changed: AtomicBool,
    doorbell: Doorbell,
}

impl TimerBank {
    /// A bank of disarmed timers whose changes are told to `doorbell`.
    pub fn new(doorbell: Doorbell) -> Arc<Self> {
        let slots = core::array::from_fn(|_| Slot {
            deadline: AtomicU64::new(DISARMED),
            client: Once::new(),
            is_hosts: AtomicBool::new(false),
        });
        Arc::new(Self { slots, changed: AtomicBool::new(true), doorbell })
    }

    /// True if [`earliest`](Self::earliest) may have another answer than before the last call.
    #[inline]
    pub fn take_changed(&self) -> bool {
        self.have_changed() && self.changed.swap(false, Ordering::AcqRel)
    }

    /// True if [`take_changed`](Self::take_changed) would say so.
    #[inline]
    pub fn have_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// The earliest deadline of all armed timers.
    pub fn earliest(&self) -> Option<VmInstant> {
        let earliest = self.slots.iter().map(|s| s.deadline.load(Ordering::Acquire)).min();
        earliest.filter(|&at| at != DISARMED).map(VmInstant)
    }

    /// True if a timer is armed that may make a device interrupt the guest.
    pub fn may_interrupt_guest(&self) -> bool {
        self.slots.iter().any(|slot| {
            slot.deadline.load(Ordering::Acquire) != DISARMED
                && !slot.is_hosts.load(Ordering::Relaxed)
        })
    }

    /// Calls the clients of all timers whose moment has come.
    pub fn expire(&self, now: VmInstant) {
        for slot in &self.slots {
            let deadline = slot.deadline.load(Ordering::Acquire);
            if deadline > now.0 || deadline == DISARMED {
                continue;
            }
            // A client on another vCPU may re-arm at this moment: only the deadline that was
            // seen to pass is taken.
            let taken = slot.deadline.compare_exchange(
                deadline,
                DISARMED,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            self.changed.store(true, Ordering::Release);
            let client = slot.client.get().and_then(Weak::upgrade);
            if let (Ok(_), Some(client)) = (taken, client) {
                client.timer_expired(now);
            }
        }
    }
}

/// One device timer.
#[derive(Clone)]
pub struct Timer {
    bank: Arc<TimerBank>,
    index: usize,
}

impl Timer {
    /// Timer number `index` of `bank`; `None` if it has no such timer.
    pub fn new(bank: &Arc<TimerBank>, index: usize) -> Option<Self> {
        (index < MAX_TIMERS).then(|| Self { bank: bank.clone(), index })
    }

    /// Names the device to call; the first call wins. It does not keep the device alive.
    pub fn connect(&self, client: Arc<dyn TimerClient>) {
        self.slot().client.call_once(|| Arc::downgrade(&client));
    }

    /// Marks the timer as one that serves the host and never interrupts the guest.
    pub fn mark_as_hosts(&self) {
        self.slot().is_hosts.store(true, Ordering::Relaxed);
    }

    /// Arms the timer, replacing an earlier deadline.
    pub fn arm(&self, at: VmInstant) {
        self.set(at.0.min(DISARMED - 1));
        self.bank.doorbell.ring();
    }

    /// Disarms the timer. A call that is under way on another vCPU may still come.
    pub fn cancel(&self) {
        self.set(DISARMED);
    }

    fn set(&self, deadline: u64) {
        self.slot().deadline.store(deadline, Ordering::Release);
        self.bank.changed.store(true, Ordering::Release);
    }

    fn slot(&self) -> &Slot {
        &self.bank.slots[self.index]
    }
}
