// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual-processor identifiers (Intel SDM vol. 3, 28.1 and 28.4).
//!
//! Each vCPU of the machine has its own for as long as it lives. There are 65,535 of them; a
//! vCPU that gets none runs without, and loses its translations at each entry and exit.

use alloc::sync::Arc;

use spin::Mutex;

use super::{
    capability::Capabilities,
    instruction::{InvalidationDescriptor, invalidation, invvpid},
};

const WORDS: usize = (u16::MAX as usize + 1) / 64;

/// Which identifiers are taken.
pub struct VpidPool(Mutex<alloc::boxed::Box<[u64; WORDS]>>);

/// An identifier, given back when dropped.
pub struct Vpid {
    number: u16,
    pool: Arc<VpidPool>,
}

impl VpidPool {
    /// A pool with all identifiers but zero, which is the host's.
    pub fn new() -> Self {
        let mut taken = alloc::boxed::Box::new([0; WORDS]);
        taken[0] = 1;
        Self(Mutex::new(taken))
    }

    /// The lowest free identifier, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Vpid> {
        let mut words = self.0.lock();
        let (index, word) = words.iter_mut().enumerate().find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        let number = u16::try_from(index * 64 + bit as usize).ok()?;
        Some(Vpid { number, pool: self.clone() })
    }
}

impl Vpid {
    /// The number that the hardware sees.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Drops what the calling CPU has cached under the identifier.
    ///
    /// # Safety
    /// The CPU is in VMX operation.
    pub unsafe fn invalidate(&self, capabilities: &Capabilities) {
        let kind = match capabilities.msrs.ept.invvpid_single() {
            true => invalidation::SINGLE_CONTEXT,
            false => invalidation::ALL_CONTEXTS,
        };
        // SAFETY: the caller's promise; VPIDs are used only where one of the two kinds is
        // there.
        unsafe { invvpid(kind, &InvalidationDescriptor([u64::from(self.number), 0])) }
    }
}

impl Drop for Vpid {
    fn drop(&mut self) {
        let number = usize::from(self.number);
        if let Some(word) = self.pool.0.lock().get_mut(number / 64) {
            *word &= !(1 << (number % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_while_they_live() {
        let pool = Arc::new(VpidPool::new());
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_eq!((first.number(), second.number()), (1, 2));
        drop(first);
        assert_eq!(pool.take().unwrap().number(), 1);
    }

    #[test]
    fn the_pool_runs_out_without_the_hosts() {
        let pool = Arc::new(VpidPool::new());
        let all: alloc::vec::Vec<_> = core::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all.len(), usize::from(u16::MAX));
        assert!(all.iter().all(|vpid| vpid.number() != 0));
    }
}
