// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often, and for how long, a computation is interrupted.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(noise, bench_guests::noise::run);
