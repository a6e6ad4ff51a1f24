// SPDX-License-Identifier: MIT OR Apache-2.0
//! How interrupts are addressed, delivered, ordered, masked and ended.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(interrupts);
