// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that works and keeps watch beside others.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(neighbour);
