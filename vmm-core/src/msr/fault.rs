// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an access that the architecture forbids gets.

use core::fmt;

use crate::state::Exception;

/// The access draws #GP(0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeneralProtection;

impl fmt::Display for GeneralProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("general protection fault")
    }
}

impl core::error::Error for GeneralProtection {}

impl From<GeneralProtection> for Exception {
    fn from(_: GeneralProtection) -> Self {
        Self::GENERAL_PROTECTION
    }
}
