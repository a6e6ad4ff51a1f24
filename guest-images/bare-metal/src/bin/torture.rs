// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that executes random instructions.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(torture);
