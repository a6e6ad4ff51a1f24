// SPDX-License-Identifier: MIT OR Apache-2.0
//! ACPI tables, power-off and reset.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(acpi);
