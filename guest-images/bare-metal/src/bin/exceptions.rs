// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every exception a guest can raise on itself.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(exceptions);
