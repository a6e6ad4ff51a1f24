// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host-agnostic virtual machine monitor core.
#![no_std]
