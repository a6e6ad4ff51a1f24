// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it costs to work with address spaces.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(paging, bench_guests::paging::run);
