// SPDX-License-Identifier: MIT OR Apache-2.0
//! A spin lock that may be taken by interrupt handlers: interrupts are off while it is held.

use core::ops::{Deref, DerefMut};

use crate::cpu::interrupt_flag;

/// Data behind a spin lock whose holder cannot be interrupted.
pub struct IrqLock<T> {
    inner: spin::Mutex<T>,
}

/// Access to the data; releases the lock and restores the interrupt flag when dropped.
pub struct IrqLockGuard<'a, T> {
    // Dropped first, in order of declaration: the lock is free before interrupts are on.
    inner: spin::MutexGuard<'a, T>,
    _restore: interrupt_flag::Restore,
}

impl<T> IrqLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { inner: spin::Mutex::new(value) }
    }

    /// Takes the lock.
    pub fn lock(&self) -> IrqLockGuard<'_, T> {
        let restore = interrupt_flag::disable();
        IrqLockGuard { inner: self.inner.lock(), _restore: restore }
    }

    /// Takes the lock after at most `attempts` looks at it. For the panic path, where the
    /// holder may have been stopped.
    pub fn lock_within(&self, attempts: u32) -> Option<IrqLockGuard<'_, T>> {
        let restore = interrupt_flag::disable();
        for _ in 0..attempts {
            if let Some(inner) = self.inner.try_lock() {
                return Some(IrqLockGuard { inner, _restore: restore });
            }
            core::hint::spin_loop();
        }
        None
    }
}

impl<T> Deref for IrqLockGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for IrqLockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_lock_is_not_taken_twice() {
        let lock = IrqLock::new(1);
        let mut guard = lock.lock();
        *guard += 1;
        assert!(lock.lock_within(10).is_none());
        drop(guard);
        assert_eq!(lock.lock_within(1).map(|g| *g), Some(2));
    }
}
