// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders that commands work in.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Root of the workspace.
    pub root: PathBuf,
    /// Cargo's target folder; everything the commands write goes below it.
    pub target: PathBuf,
}

impl Paths {
    /// Finds the workspace this program was built from and the target folder it was built in.
    ///
    /// # Errors
    /// When the program was moved out of a Cargo target folder.
    pub fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask must be run as 'cargo xtask'")?.to_path_buf();
        // <target>/<profile>/xtask: follows CARGO_TARGET_DIR and Cargo's configuration.
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let target = program
            .parent()
            .and_then(Path::parent)
            .context("xtask must be run as 'cargo xtask'")?
            .to_path_buf();
        Ok(Self { root, target })
    }

    /// Downloaded and built guest images.
    pub fn images(&self) -> PathBuf {
        self.target.join("guest-images")
    }

    /// Logs and working files of runs, a folder each.
    pub fn runs(&self) -> PathBuf {
        self.target.join("alcazar/runs")
    }

    /// Logs of `test` and `regress`, a file for each row.
    pub fn row_logs(&self) -> PathBuf {
        self.target.join("alcazar/rows")
    }
}
