// SPDX-License-Identifier: MIT OR Apache-2.0
//! What others may see and set of a local APIC, without a lock.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use bitfield_struct::bitfield;

use super::VectorSet;
use crate::Vector;

/// What a sender needs to know to decide whether a local APIC is addressed.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(super) struct Identity {
    /// APIC ID: 32 bits in x2APIC mode, 8 in xAPIC mode.
    pub id: u32,
    /// Logical APIC ID of xAPIC mode; that of x2APIC mode follows from the ID.
    pub logical: u8,
    /// Flat model in xAPIC mode; otherwise cluster model.
    pub flat: bool,
    pub x2apic: bool,
    /// Enabled in IA32_APIC_BASE.
    pub present: bool,
    /// Enabled in the spurious-interrupt vector register.
    pub software_enabled: bool,
    #[bits(20)]
    __: u32,
}

/// Pending events other than fixed interrupts, and the start-up vector.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(super) struct Events {
    pub nmi: bool,
    pub init: bool,
    pub startup: bool,
    pub external: bool,
    pub startup_vector: u8,
    #[bits(20)]
    __: u32,
}

/// The shared side of a local APIC: senders post here, the owner collects.
///
/// Everything is atomic; posting takes no lock and allocates nothing. A sender rings the
/// vCPU's doorbell after it has posted; [`LocalApicBus`](super::LocalApicBus) does both.
#[derive(Default)]
pub struct ApicInbox {
    identity: AtomicU64,
    /// Task priority class, for lowest-priority arbitration.
    priority: AtomicU8,
    /// Bit n: word n of `requests` may hold something.
    summary: AtomicU32,
    requests: [AtomicU32; 8],
    level: [AtomicU32; 8],
    events: AtomicU32,
}

impl ApicInbox {
    /// The inbox of a local APIC that is not there yet: it matches no destination.
    pub fn new() -> Self {
        Self::default()
    }

    /// Posts an interrupt request.
    #[inline]
    pub fn post(&self, vector: Vector, level_triggered: bool) {
        let word = usize::from(vector.0 / 32);
        let bit = 1 << (vector.0 % 32);
        if level_triggered {
            self.level[word].fetch_or(bit, Ordering::Relaxed);
        } else if self.level[word].load(Ordering::Relaxed) & bit != 0 {
            self.level[word].fetch_and(!bit, Ordering::Relaxed);
        }
        self.requests[word].fetch_or(bit, Ordering::Release);
        self.summary.fetch_or(1 << word, Ordering::SeqCst);
    }

    /// Posts a non-maskable interrupt.
    pub fn post_nmi(&self) {
        self.update_events(|e| Some(e.with_nmi(true)));
    }

    /// Posts an INIT, which cancels a start-up that came before it.
    pub fn post_init(&self) {
        self.update_events(|e| Some(e.with_init(true).with_startup(false)));
    }

    /// Posts a start-up at physical address `vector` × 4096. A second one before the first
    /// is taken is dropped, as a CPU that has started drops it.
    pub fn post_startup(&self, vector: Vector) {
        self.update_events(|e| {
            (!e.startup()).then(|| e.with_startup(true).with_startup_vector(vector.0))
        });
    }

    /// Posts an interrupt whose vector the external controller supplies.
    pub fn post_external(&self) {
        self.update_events(|e| Some(e.with_external(true)));
    }

    /// True if anything was posted that the owner has not yet collected or taken.
    #[inline]
    pub fn has_mail(&self) -> bool {
        // The vector of a start-up that was taken stays behind.
        let events = self.events().with_startup_vector(0);
        self.summary.load(Ordering::SeqCst) != 0 || events != Events::new()
    }

    /// Moves posted requests to `irr` and their trigger modes to `tmr`.
    #[inline]
    pub(super) fn collect(&self, irr: &mut VectorSet, tmr: &mut VectorSet) {
        if self.summary.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut words = self.summary.swap(0, Ordering::SeqCst);
        while words != 0 {
            let word = words.trailing_zeros() as usize;
            words &= words - 1;
            let (Some(requests), Some(level)) = (self.requests.get(word), self.level.get(word))
            else {
                return;
            };
            let bits = requests.swap(0, Ordering::Acquire);
            irr.merge(word, bits);
            tmr.assign(word, bits, level.load(Ordering::Relaxed));
        }
    }

    pub(super) fn events(&self) -> Events {
        Events::from_bits(self.events.load(Ordering::SeqCst))
    }

    /// Applies `change` until no other thread interferes; `None` leaves the events alone.
    /// Returns what was there before.
    pub(super) fn update_events(&self, change: impl Fn(Events) -> Option<Events>) -> Events {
        let update = |bits| change(Events::from_bits(bits)).map(Events::into_bits);
        let result = self.events.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update);
        Events::from_bits(result.unwrap_or_else(|unchanged| unchanged))
    }

    #[inline]
    pub(super) fn identity(&self) -> Identity {
        Identity::from_bits(self.identity.load(Ordering::Acquire))
    }

    pub(super) fn publish_identity(&self, identity: Identity) {
        self.identity.store(identity.into_bits(), Ordering::Release);
    }

    #[inline]
    pub(super) fn priority_class(&self) -> u8 {
        self.priority.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn publish_priority_class(&self, class: u8) {
        self.priority.store(class, Ordering::Relaxed);
    }
}
