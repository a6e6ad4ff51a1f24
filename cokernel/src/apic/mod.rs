// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt controllers.

pub(crate) mod io;
pub(crate) mod local;
pub(crate) mod pic;
