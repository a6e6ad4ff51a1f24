// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timers and interrupt controllers.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(timers);
