// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lightweight, tickless co-kernel.
#![no_std]
