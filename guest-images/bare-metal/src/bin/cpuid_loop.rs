// SPDX-License-Identifier: MIT OR Apache-2.0
//! Executes CPUID over and over: the cheapest exit there is, to count what it costs.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(cpuid_loop);
