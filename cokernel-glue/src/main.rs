// SPDX-License-Identifier: MIT OR Apache-2.0
//! Developer and operator commands.

fn main() {}
