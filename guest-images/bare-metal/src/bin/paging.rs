// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPU's address translation against the VMM's page walker.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(paging);
