// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every memory instruction form against memory-mapped registers.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(mmio);
