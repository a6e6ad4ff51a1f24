// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making sure that no vCPU uses a translation that was taken back.
//!
//! Whoever takes translations back begins a new *generation*, and then looks where each other
//! vCPU is. Each vCPU says that it goes inside the guest, and only then looks at the generation;
//! if it is not the one that it flushed for last, it flushes before it enters. Both use
//! sequentially consistent order, so at least one sees the other: either the vCPU flushes, or it
//! is seen inside with an old generation, is made to leave, and flushes when it comes back. What
//! was taken back is used again only when nobody is inside with an older generation.
//!
//! This file is compiled into `tests/interleavings.rs`, too, where a model checker tries it.

use alloc::boxed::Box;

use crate::sync::{AtomicU64, Ordering};

const INSIDE: u64 = 1;

/// Before the first generation.
const NEVER: u64 = 0;
const FIRST: u64 = 1;

/// The generations of one VM: the current one, and the one each vCPU flushed for last.
pub struct Shootdown {
    generation: AtomicU64,
    /// By vCPU: the generation, shifted left, and whether the vCPU is inside the guest.
    members: Box<[AtomicU64]>,
}

impl Shootdown {
    /// For `vcpus` vCPUs, all outside.
    pub fn new(vcpus: usize) -> Self {
        let members = (0..vcpus).map(|_| AtomicU64::new(FIRST << 1)).collect();
        Self { generation: AtomicU64::new(FIRST), members }
    }

    /// Has `own`, which is outside and asks for itself, flush when it enters next.
    pub fn outdate(&self, own: usize) {
        if let Some(member) = self.members.get(own) {
            member.store(NEVER << 1, Ordering::SeqCst);
        }
    }

    /// Says that `vcpu` is about to enter the guest. True if it has to flush all translations
    /// first.
    pub fn enter(&self, vcpu: usize) -> bool {
        let Some(member) = self.members.get(vcpu) else { return true };
        let seen = member.load(Ordering::SeqCst) >> 1;
        member.store(seen << 1 | INSIDE, Ordering::SeqCst);
        let generation = self.generation.load(Ordering::SeqCst);
        if generation == seen {
            return false;
        }
        member.store(generation << 1 | INSIDE, Ordering::SeqCst);
        true
    }

    /// Says that `vcpu` is back.
    pub fn leave(&self, vcpu: usize) {
        if let Some(member) = self.members.get(vcpu) {
            let seen = member.load(Ordering::SeqCst) >> 1;
            member.store(seen << 1, Ordering::SeqCst);
        }
    }

    /// Has every vCPU but `own`, which is outside, flush before it uses any translation again;
    /// returns when none can use an old one any more. `ring` makes a vCPU leave the guest, and
    /// `relax` passes the time until it has.
    pub fn flush(&self, own: usize, mut ring: impl FnMut(usize), mut relax: impl FnMut()) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        for (vcpu, member) in self.members.iter().enumerate() {
            let uses_old = || {
                let state = member.load(Ordering::SeqCst);
                state & INSIDE != 0 && state >> 1 < generation
            };
            if vcpu != own && uses_old() {
                ring(vcpu);
                while uses_old() {
                    relax();
                }
            }
        }
    }
}
