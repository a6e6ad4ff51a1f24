// SPDX-License-Identifier: MIT OR Apache-2.0
//! How one CPU gets the attention of a vCPU that runs on another.
//!
//! The protocol has two sides. The ringer publishes its work, sets `attention`, and then
//! looks where the vCPU is. The vCPU publishes where it is about to go, and then looks at
//! `attention`, with physical interrupts held pending. Both use sequentially consistent
//! order, so at least one of them sees the other: either the vCPU stays outside, or a kick is
//! sent, and a kick that arrives while interrupts are held makes the entry end at once.

use alloc::sync::Arc;

use host_iface::{CpuId, Host, InputListener};

use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// Where a vCPU is: the low values of [`VcpuLink::place`]; otherwise `CPU + INSIDE_BASE`.
const OUTSIDE: u32 = 0;
const INSIDE_BASE: u32 = 1;

/// What others know of a vCPU: whether it has to be kicked, and where.
#[derive(Default)]
pub struct VcpuLink {
    attention: AtomicBool,
    place: AtomicU32,
}

impl VcpuLink {
    /// The flag that a backend looks at with interrupts held, just before it enters the
    /// guest.
    #[inline]
    pub fn attention(&self) -> &AtomicBool {
        &self.attention
    }

    /// Says that the vCPU is about to enter the guest, or to wait, on `cpu`.
    #[inline]
    pub fn going_inside(&self, cpu: CpuId) {
        // There is no CPU of the highest number, as they are counted by the same type.
        self.place.store(cpu.0.wrapping_add(INSIDE_BASE), Ordering::SeqCst);
    }

    /// Says that the vCPU is back in the VMM. Who sees that late kicks in vain.
    #[inline]
    pub fn back_outside(&self) {
        self.place.store(OUTSIDE, Ordering::Release);
    }

    /// Takes the attention flag; work published before it was set is visible afterwards.
    #[inline]
    pub fn take_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst) && self.attention.swap(false, Ordering::SeqCst)
    }

    /// True if somebody rang.
    #[inline]
    pub fn needs_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    fn ring(&self, host: &dyn Host) {
        if !self.attention.swap(true, Ordering::SeqCst) {
            self.kick(host);
        }
    }

    fn insist(&self, host: &dyn Host) {
        self.attention.store(true, Ordering::SeqCst);
        self.kick(host);
    }

    fn kick(&self, host: &dyn Host) {
        let place = self.place.load(Ordering::SeqCst);
        if let Some(cpu) = place.checked_sub(INSIDE_BASE).map(CpuId) {
            host.kick(cpu);
        }
    }
}

/// A handle with which anybody makes a vCPU look at its pending work.
#[derive(Clone)]
pub struct Doorbell {
    target: Option<(&'static dyn Host, Arc<VcpuLink>)>,
}

impl Doorbell {
    /// The doorbell of the vCPU behind `link`.
    pub fn new(host: &'static dyn Host, link: Arc<VcpuLink>) -> Self {
        Self { target: Some((host, link)) }
    }

    /// A doorbell that rings nowhere; for devices tested on their own.
    pub fn disconnected() -> Self {
        Self { target: None }
    }

    /// Makes the vCPU look. Rings that it has not yet answered count as one.
    pub fn ring(&self) {
        if let Some((host, link)) = &self.target {
            link.ring(*host);
        }
    }

    /// Makes the vCPU look, and kicks it although it was rung before and has not answered: what
    /// was rung may have been lost on its way.
    pub fn insist(&self) {
        if let Some((host, link)) = &self.target {
            link.insist(*host);
        }
    }
}

/// The first vCPU's doorbell serves its console: it looks for input when it is rung.
impl InputListener for Doorbell {
    fn input_arrived(&self) {
        self.ring();
    }
}
