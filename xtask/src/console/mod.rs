// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's console: everything between its first serial port and the user.

pub mod escape;
pub mod filter;
pub mod input;
pub mod pump;
pub mod terminal;

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

/// Makes the secret of one run that tells its markers from anything a guest prints:
/// 128 random bits in hexadecimal.
///
/// # Errors
/// When the operating system has no random numbers.
pub fn new_nonce() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
