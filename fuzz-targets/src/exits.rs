// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop of two vCPUs.

use vmm_core::test_support::check_exits;

use crate::bounds::allocated;

/// Exits of any kind, in any state of the guest, with any events on the way: each is dealt with,
/// and no more is allocated for one than is known.
pub fn run(input: &[u8]) {
    check_exits(input, allocated);
}
