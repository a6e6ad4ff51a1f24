// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cache of guest images: folders that appear whole or not at all.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::progress::Progress;

/// The cache, locked against other processes while this value lives.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens and locks the cache, waiting for another command that uses it.
    ///
    /// # Errors
    /// When the folder cannot be made or locked.
    pub fn open(paths: &Paths) -> Result<Self> {
        let folder = paths.images();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(".lock");
        let lock =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let _progress = Progress::start("waiting for another cargo xtask to make guest images");
            lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Self { folder, _lock: lock })
    }

    /// The entry `name`, made by `make` in an empty folder if it is not there yet.
    ///
    /// # Errors
    /// Those of `make`, after which there is still no entry.
    pub fn entry(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let entry = self.folder.join(name);
        if entry.is_dir() {
            return Ok(entry);
        }
        let work = tempfile::Builder::new().prefix(".making-").tempdir_in(&self.folder)?;
        // Folders for temporary files are private; what is kept need not be.
        let content = work.path().join("content");
        fs::create_dir(&content)?;
        make(&content)?;
        fs::rename(&content, &entry).with_context(|| format!("cannot make {}", entry.display()))?;
        Ok(entry)
    }

    /// Remembers that `name` stands for entry `entry`.
    ///
    /// # Errors
    /// When writing fails.
    pub fn set_alias(&self, name: &str, entry: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new_in(&self.folder)?;
        fs::write(file.path(), entry)?;
        file.persist(self.alias_path(name))?;
        Ok(())
    }

    /// The entry that `name` last stood for, if it is still there.
    pub fn alias(&self, name: &str) -> Option<PathBuf> {
        let entry = fs::read_to_string(self.alias_path(name)).ok()?;
        Some(self.folder.join(entry.trim())).filter(|entry| entry.is_dir())
    }

    /// The entry that `name` stands for, if that was noted after `time`.
    pub fn alias_newer_than(&self, name: &str, time: Option<SystemTime>) -> Option<PathBuf> {
        let noted = fs::metadata(self.alias_path(name)).ok()?.modified().ok()?;
        self.alias(name).filter(|_| time.is_some_and(|time| noted > time))
    }

    /// A place beside the entries for what is none, and not made here.
    pub fn hidden(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}"))
    }

    fn alias_path(&self, name: &str) -> PathBuf {
        self.hidden(&format!("{name}.current"))
    }
}

/// Names of the entries in the cache at `folder`.
pub fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn store(folder: &Path) -> Store {
        Store::open(&Paths { root: folder.into(), target: folder.into() }).unwrap()
    }

    #[test]
    fn entries_are_made_once_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let failed = store.entry("a", |work| {
            fs::write(work.join("half"), "x")?;
            anyhow::bail!("interrupted")
        });
        assert!(failed.is_err());
        assert!(entries(&store.folder).is_empty());

        let made = Cell::new(0);
        for _ in 0..2 {
            let entry = store.entry("a", |work| {
                made.set(made.get() + 1);
                Ok(fs::write(work.join("whole"), "x")?)
            });
            assert!(entry.unwrap().join("whole").is_file());
        }
        assert_eq!(made.get(), 1);
        assert_eq!(entries(&store.folder), ["a"]);
    }

    #[test]
    fn an_alias_needs_its_entry() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.set_alias("kernel", "kernel_1").unwrap();
        assert_eq!(store.alias("kernel"), None);
        let entry = store.entry("kernel_1", |_| Ok(())).unwrap();
        assert_eq!(store.alias("kernel"), Some(entry.clone()));
        let now = SystemTime::now() + std::time::Duration::from_secs(1);
        assert_eq!(store.alias_newer_than("kernel", Some(now)), None);
        assert_eq!(store.alias_newer_than("kernel", None), None);
        let before = Some(SystemTime::UNIX_EPOCH);
        assert_eq!(store.alias_newer_than("kernel", before), Some(entry));
    }
}
