// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports and guest-physical pages that nobody owns.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(denied);
