// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask lint`: rules of this repository that no other tool checks.

mod dependencies;
mod files;
mod seam;
mod spdx;
mod supply;

use anyhow::Result;

use crate::paths::Paths;

/// Checks the rules and prints a line for each breach; the exit status is 0 if there is none.
///
/// # Errors
/// When the repository cannot be read.
pub fn run(paths: &Paths) -> Result<u8> {
    let mut breaches = spdx::check(&paths.root)?;
    breaches.extend(dependencies::check(&paths.root)?);
    breaches.extend(supply::check(&paths.root)?);
    breaches.extend(seam::check(&paths.root)?);
    for breach in &breaches {
        eprintln!("error: {breach}");
    }
    Ok(u8::from(!breaches.is_empty()))
}
