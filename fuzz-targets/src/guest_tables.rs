// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the VMM does with page tables that a guest writes, against models of it.

use vmm_core::test_support::{check_sequence, check_walks};

/// The page walker agrees with the reference on the tables that `input` describes.
pub fn walk(input: &[u8]) {
    check_walks(input);
}

/// Shadow paging serves the life of a guest that `input` describes as its tables say.
pub fn shadow(input: &[u8]) {
    check_sequence(input);
}
