// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model-specific registers that no hardware backend holds.

mod fault;

pub use fault::GeneralProtection;
