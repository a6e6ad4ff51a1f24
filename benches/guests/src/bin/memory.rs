// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uses all memory there is.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(memory, bench_guests::memory::run);
