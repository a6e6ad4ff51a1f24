// SPDX-License-Identifier: MIT OR Apache-2.0
//! Static data that the boot CPU alone changes.

use core::cell::UnsafeCell;

/// Static data at a fixed address, reached by raw pointer: by this program or by the CPU itself.
#[repr(C, align(4096))]
pub struct Fixed<T>(UnsafeCell<T>);

// SAFETY: access goes through `get`, whose users each say why theirs does not race.
unsafe impl<T> Sync for Fixed<T> {}

impl<T> Fixed<T> {
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub const fn get(&self) -> *mut T {
        self.0.get()
    }

    /// The address, which is physical and linear at once.
    pub fn address(&self) -> u64 {
        self.0.get() as u64
    }
}
