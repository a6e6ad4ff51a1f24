// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switches of tasks.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(tasks);
