// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of address translation.

pub mod dice;
pub(crate) mod memory;
mod mutants;
mod property;
mod reference;
mod shape;
mod walk;
