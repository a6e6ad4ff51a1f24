// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every operating mode of the CPU.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(modes);
