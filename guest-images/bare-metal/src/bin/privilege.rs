// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every instruction that can exit, in every mode and at both ends of privilege.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(privilege);
