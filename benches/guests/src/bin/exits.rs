// SPDX-License-Identifier: MIT OR Apache-2.0
//! What single operations cost that may leave the guest.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(exits, bench_guests::exits::run);
