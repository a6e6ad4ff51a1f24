// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory and the host memory behind it.

mod allocate;
mod guest;
pub(crate) mod heap;
mod layout;
mod live;
mod pages;
#[cfg(test)]
mod ranges;
mod walked;
mod witness;

pub use allocate::{MIN_MEMORY, SYSTEM_ROM, SYSTEM_ROM_END, allocate};
pub use guest::{GuestMemory, MemoryError, Region, RegionAccess};
pub(crate) use heap::text;
pub use layout::{HIGH_MEMORY, LOW_MEMORY_END, MemoryLayout};
pub use live::{LiveMemory, ShadowWatch};
pub use pages::OwnedPages;
pub(crate) use witness::Witness;
