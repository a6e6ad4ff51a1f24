// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address translation.

pub mod walk;

#[cfg(test)]
mod tests;
