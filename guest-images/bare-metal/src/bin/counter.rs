// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints numbered lines at a steady pace.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(counter);
