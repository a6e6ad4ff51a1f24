// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of address translation.

mod memory;
mod reference;
mod walk;
