// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC, in two halves.
//!
//! [`ApicInbox`] is what other CPUs and devices reach: atomics only. [`LocalApic`] is the
//! rest and belongs to its vCPU's thread, which moves posted requests over before each entry
//! ([`LocalApic::collect`]). [`LocalApicBus`] finds the addressees of a message, posts and
//! rings their doorbells. So no lock lies on the way of an interrupt.
//!
//! Sources: Intel SDM vol. 3, chapter 11; AMD APM vol. 2, chapter 16.

mod base;
mod bus;
mod command;
mod hardware;
mod inbox;
mod local;
mod lvt;
mod mmio;
mod registers;
mod state;
mod timer;
mod vectors;
mod view;
mod x2apic;

pub use base::{ApicMode, DEFAULT_APIC_BASE};
pub use bus::{BusMember, LocalApicBus};
pub use hardware::InterruptState;
pub use inbox::ApicInbox;
pub use local::{LocalApic, LocalApicConfig};
pub use state::LocalApicState;
pub use timer::{APIC_BUS_HZ, MINIMUM_PERIOD_NS, TimerState};
pub use vectors::VectorSet;
pub use view::LocalApicView;
pub use x2apic::X2APIC_MSRS;

#[cfg(test)]
mod tests;
