// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask clean`: removes what the commands have made.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use crate::paths::Paths;

/// Removes logs and guest images; what Cargo built stays, `cargo clean` removes everything.
#[derive(Clone, Copy, Debug, Args)]
pub struct CleanOptions {
    /// Keep the guest images, which have to be downloaded again
    #[arg(long)]
    pub keep_images: bool,
}

/// Removes the folders.
///
/// # Errors
/// When one cannot be removed.
pub fn run(paths: &Paths, options: CleanOptions) -> Result<u8> {
    remove(&paths.target.join("alcazar"))?;
    if !options.keep_images {
        remove(&paths.images())?;
    }
    Ok(0)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("cannot remove {}", folder.display())),
    }
}
