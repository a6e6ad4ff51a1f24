// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far every clock of the machine gets in a while.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(drift);
