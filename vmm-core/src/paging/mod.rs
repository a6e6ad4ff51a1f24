// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address translation: the guest's own page tables, the nested tables under them, and the shadow
//! tables that can take the place of both.

mod nested;
pub mod shadow;
#[cfg(any(test, feature = "test-support"))]
#[doc(hidden)]
pub(crate) mod tests;
pub mod walk;

pub use nested::{LongModeEntries, NestedEntries, NestedTables};
