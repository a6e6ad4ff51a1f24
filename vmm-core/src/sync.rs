// SPDX-License-Identifier: MIT OR Apache-2.0
//! Atomics of the protocols that a model checker explores: `tests/interleavings.rs` compiles
//! their files with its own.

pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
