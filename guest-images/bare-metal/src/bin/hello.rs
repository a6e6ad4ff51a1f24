// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints one line and ends: the smallest guest there is.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(hello);
