// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities that a host may leave out.

use alloc::sync::Arc;

/// A byte stream that reaches a person or a tool: the console of a guest.
///
/// Both directions may be called from any CPU at any time.
pub trait HostConsole: Sync {
    /// Sends bytes; blocks at most until the hardware has taken them.
    fn write(&self, bytes: &[u8]);

    /// Takes up to `buffer.len()` bytes that have arrived, without waiting; returns how many.
    ///
    /// Bytes not taken stay with the host, which stops its peer when it holds too many, so
    /// that none is lost.
    fn read(&self, buffer: &mut [u8]) -> usize;

    /// Has `listener` told whenever bytes arrive, or, with `None`, nobody any more. Once told,
    /// it need not be told again before [`HostConsole::read`] has found fewer bytes than it was
    /// asked for.
    fn notify(&self, listener: Option<Arc<dyn InputListener>>);
}

/// Whoever waits for input of a [`HostConsole`].
pub trait InputListener: Send + Sync {
    /// Bytes have arrived. Called on any CPU, also by an interrupt handler: it neither waits nor
    /// allocates, and leaves the reading to others.
    fn input_arrived(&self);
}

/// A moment of civil time in UTC, as a battery-backed clock gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WallClockTime {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub unix_seconds: u64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// A clock that knows the civil time.
pub trait HostWallClock: Sync {
    /// The time now.
    fn now(&self) -> WallClockTime;
}
