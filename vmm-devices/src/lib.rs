// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PC platform and its devices for vmm-core.
#![no_std]
