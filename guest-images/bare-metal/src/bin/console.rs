// SPDX-License-Identifier: MIT OR Apache-2.0
//! Echoes what comes in on the first serial port.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(console);
