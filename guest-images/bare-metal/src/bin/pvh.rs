// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel with a PVH entry that looks at everything its loader gave it.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(loader);
