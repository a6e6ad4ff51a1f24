// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUID, model-specific and control registers.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(msr_cpuid);
