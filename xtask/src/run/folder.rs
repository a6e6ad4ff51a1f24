// SPDX-License-Identifier: MIT OR Apache-2.0
//! A folder for the files of one run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::paths::Paths;

/// How many folders of finished runs are kept.
const KEPT: usize = 10;

/// Name of the file that is locked while a run uses its folder.
const LOCK: &str = ".lock";

/// The folder of one run. Logs stay when the run ends; images are removed.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes a new folder, and removes those of the oldest finished runs.
    ///
    /// # Errors
    /// When that is impossible.
    pub fn create(paths: &Paths) -> Result<Self> {
        let parent = paths.runs();
        fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        prune(&parent);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("{:020}-", now.as_nanos());
        let path = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?
            .keep();
        let lock = File::create(path.join(LOCK))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    /// Path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "cpio" || extension == "iso")
            {
                // A leftover goes with the folder later.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Removes all but the newest folders, sparing those in use. Failure is another run's chance.
fn prune(parent: &Path) {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let surplus = folders.len().saturating_sub(KEPT);
    for folder in folders.iter().take(surplus) {
        let free = File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if free {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_folders_go_unless_in_use() {
        let target = tempfile::tempdir().unwrap();
        let paths = Paths { root: target.path().into(), target: target.path().into() };
        let oldest = RunFolder::create(&paths).unwrap();
        fs::write(oldest.file("bundle.cpio"), "x").unwrap();
        let second = RunFolder::create(&paths).unwrap().path.clone();
        // The new folder comes after old ones are removed, and the oldest one stays.
        for _ in 0..KEPT + 1 {
            drop(RunFolder::create(&paths).unwrap());
        }
        assert!(oldest.path.is_dir());
        assert!(!second.exists());
        let path = oldest.path.clone();
        drop(oldest);
        assert!(path.is_dir() && !path.join("bundle.cpio").exists());
    }
}
