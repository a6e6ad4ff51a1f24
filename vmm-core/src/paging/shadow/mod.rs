// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shadow paging: tables that the VMM keeps for the CPU, made from the guest's own.
//!
//! The guest's tables translate to guest-physical addresses, and the CPU never walks them. It
//! walks shadow tables, which translate straight to the host's, and are made as the guest touches
//! its pages. `docs/shadow-paging.md` has a picture. In short:
//!
//! - A shadow table stands for a guest frame in a `role`; an `arena` of bounded size holds
//!   them all, by handles that go stale when a table is given up.
//! - Each entry is in a `chain`: of the guest frame that it maps, or the table it leads to.
//! - `fault` walks the guest's tables, sets their accessed and dirty bits, and then either gives
//!   the fault to the guest or makes the missing entries.
//! - `protect` keeps the guest from changing its tables unseen.
//! - `shootdown` sees to it that no vCPU uses a translation that was taken back.
//!
//! **Lock.** One lock for a VM is around all of it but the shootdown's atomics. It is innermost:
//! nothing of a device is called while it is held, and who waits under it, for other vCPUs to
//! leave the guest, waits for nobody that could need it, as no vCPU holds it inside the guest.

mod arena;
mod chain;
mod config;
mod entry;
mod fault;
mod frame;
mod guest_entry;
mod link;
mod mmu;
mod protect;
mod registers;
mod role;
mod root;
mod shared;
mod shootdown;
mod statistics;
mod table_memory;
#[cfg(any(test, feature = "test-support"))]
#[doc(hidden)]
#[allow(clippy::unwrap_used, reason = "a model fails by panicking, as a test does")]
pub(crate) mod tests;
mod zap;

pub use arena::StaleHandle;
pub use config::{ShadowConfig, default_budget, least_tables};
pub use fault::FaultAction;
pub use registers::on_shadow_tables;
pub use shared::ShadowMmu;
pub use statistics::ShadowStatistics;
