// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of the repository.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// Names of the tracked files, from the root of the repository.
///
/// # Errors
/// When git does not list them.
pub fn tracked(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z"]);
    let list = process::succeed(&mut git, "listing the files")?;
    let list = String::from_utf8_lossy(&list).into_owned();
    let names = list.split('\0').filter(|name| !name.is_empty());
    // Those deleted but not yet committed are listed, too.
    Ok(names.filter(|name| root.join(name).is_file()).map(Into::into).collect())
}
