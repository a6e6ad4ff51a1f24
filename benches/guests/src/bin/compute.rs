// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a computation takes that has no reason to leave the guest.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(compute, bench_guests::compute::run);
