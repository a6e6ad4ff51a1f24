// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address translation: the guest's own page tables, and the nested tables under them.

mod nested;
#[cfg(test)]
mod tests;
pub mod walk;

pub use nested::{LongModeEntries, NestedEntries, NestedTables};
