// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks for what another guest has left in registers.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(residue);
