// SPDX-License-Identifier: MIT OR Apache-2.0
//! Space on the disk, looked at before long work rather than met in the midst of it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::memory::MIB;

/// What a command leaves in the target folder, in MiB, when it begins with an empty one and no
/// incremental builds: what was measured, with room to grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need(pub u64);

impl Need {
    /// `run`, `iso`: this program, the co-kernel, a guest's kernel and RAM disks.
    pub const RUN: Self = Self(1024);
    /// `regress`, `bench`, `torture`: besides, all bare-metal guests and other builds of the
    /// co-kernel.
    pub const MACHINES: Self = Self(1536);
    /// `test` and all else that `.ci/run` does.
    pub const TESTS: Self = Self(3584);
    /// `faults`, `fuzz`, `miri`, `mutants`: a build of the crates in a folder or way of its own.
    pub const APART: Self = Self(1536);
}

/// What any work should find free, in MiB, however much is built already: logs, bundles, and what
/// Cargo builds anew.
const RESERVE: u64 = 256;

/// There is less than a command needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TooLittleSpace {
    /// The target folder.
    folder: PathBuf,
    /// MiB that the command needs beside what is there already.
    needed: u64,
    /// MiB that are free.
    free: u64,
}

impl fmt::Display for TooLittleSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, needed, free } = self;
        write!(
            f,
            "{}: {needed} MiB of disk are needed, but only {free} MiB are free: make room \
             ('cargo clean' removes old builds), or name a folder elsewhere by CARGO_TARGET_DIR",
            folder.display()
        )
    }
}

impl std::error::Error for TooLittleSpace {}

/// Checks that the file system of `folder`, the target folder, has room for `need`. What is in
/// the folder already need not be made again.
///
/// # Errors
/// When it has not. A file system that does not say how much is free has enough.
pub fn ensure(folder: &Path, need: Need) -> Result<(), TooLittleSpace> {
    match free(folder) {
        Some(free) => judge(folder, need, free, || used(folder)),
        None => Ok(()),
    }
}

/// MiB that an unprivileged user can still write there, if the file system says so.
pub fn free(folder: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(folder).ok().filter(|space| space.f_blocks > 0)?;
    Some(space.f_bavail.saturating_mul(space.f_frsize) / MIB)
}

/// `used` says how many MiB are in the folder, which takes a while to find out.
fn judge(
    folder: &Path,
    Need(whole): Need,
    free: u64,
    used: impl FnOnce() -> u64,
) -> Result<(), TooLittleSpace> {
    if free >= whole.max(RESERVE) {
        return Ok(());
    }
    let needed = whole.saturating_sub(used()).max(RESERVE);
    if free >= needed {
        return Ok(());
    }
    Err(TooLittleSpace { folder: folder.to_path_buf(), needed, free })
}

/// MiB of all files below `folder`. What cannot be read, or goes meanwhile, counts as nothing.
fn used(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_path_buf()];
    let mut bytes = 0_u64;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // Of the entry itself: links are not followed.
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) => bytes = bytes.saturating_add(data.len()),
                Err(_) => {}
            }
        }
    }
    bytes / MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "/some/target";

    fn judged(need: u64, free: u64, used: u64) -> Result<(), TooLittleSpace> {
        judge(Path::new(FOLDER), Need(need), free, || used)
    }

    #[test]
    fn an_empty_folder_needs_all_of_it() {
        assert_eq!(judged(3000, 3000, 0), Ok(()));
        let error = judged(3000, 2999, 0).unwrap_err();
        assert_eq!((error.needed, error.free), (3000, 2999));
        let line = error.to_string();
        assert!(line.starts_with("/some/target: 3000 MiB of disk are needed"), "{line}");
        assert!(line.contains("only 2999 MiB are free") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn what_is_built_is_not_needed_again() {
        assert_eq!(judged(3000, 1000, 2000), Ok(()));
        assert_eq!(judged(3000, 999, 2000).unwrap_err().needed, 1000);
    }

    #[test]
    fn some_room_is_always_needed() {
        assert_eq!(judged(3000, RESERVE, 9000), Ok(()));
        assert_eq!(judged(3000, RESERVE - 1, 9000).unwrap_err().needed, RESERVE);
        assert_eq!(judged(0, RESERVE - 1, 0).unwrap_err().needed, RESERVE);
    }

    #[test]
    fn a_roomy_disk_is_not_searched() {
        let searched = || -> u64 { panic!("searched") };
        assert_eq!(judge(Path::new(FOLDER), Need(3000), 3000, searched), Ok(()));
    }

    #[test]
    fn files_are_counted_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let nested = folder.path().join("a/b");
        fs::create_dir_all(&nested).unwrap();
        for (name, size) in [("a/one", 3 * MIB), ("a/b/two", 2 * MIB)] {
            fs::File::create(folder.path().join(name)).unwrap().set_len(size).unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), nested.join("loop")).unwrap();
        assert_eq!(used(folder.path()), 5);
        assert_eq!(used(Path::new("/no/such/folder")), 0);
    }

    #[test]
    fn a_file_system_that_says_nothing_has_enough() {
        assert_eq!(free(Path::new("/proc")), None);
        assert_eq!(ensure(Path::new("/proc"), Need(u64::MAX)), Ok(()));
        let folder = tempfile::tempdir().unwrap();
        assert!(ensure(folder.path(), Need(u64::MAX)).is_err());
    }
}
