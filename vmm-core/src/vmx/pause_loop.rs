// SPDX-License-Identifier: MIT OR Apache-2.0
//! PAUSE-loop exiting: the guest exits when its kernel has waited in a loop of PAUSEs for some
//! time (Intel SDM vol. 3, 24.6.13 and 25.1.3).
//!
//! Each vCPU has a CPU of its own, so there is nobody to make room for: the exit counts the
//! wait, and the guest goes on waiting. The window is long, so that the exits cost a thousandth
//! of the time that is lost anyhow.

use super::field::Field;

/// PAUSEs no farther apart than so many ticks of the time-stamp counter are of one loop. PAUSE
/// itself takes up to 140.
const GAP: u64 = 512;
/// A loop may take so many ticks.
const WINDOW: u64 = 1 << 20;

/// The fields that say what a loop is.
pub const FIELDS: [(Field, u64); 2] =
    [(Field::PauseLoopGap, GAP), (Field::PauseLoopWindow, WINDOW)];
