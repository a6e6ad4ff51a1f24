// SPDX-License-Identifier: MIT OR Apache-2.0
//! The initial RAM disk of the default Linux guest.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::store::Store;
use crate::cargo_build;
use crate::cpio::Archive;
use crate::paths::Paths;

/// Folders of the guest's root.
const FOLDERS: [&str; 14] = [
    "alcazar", "bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin",
    "usr/sbin", "var",
];

/// Builds `/init`, see `guest-images/init-stamp`.
///
/// # Errors
/// When Cargo fails.
pub fn build_stamp(paths: &Paths) -> Result<PathBuf> {
    cargo_build::bare_metal(paths, "init-stamp", "init-stamp", &[])
}

/// The initial RAM disk made of these parts, built if these very parts were not used before.
/// Without a `stamp`, which is a 64-bit program, the script itself is `/init`.
///
/// # Errors
/// When a part cannot be read or the result not be written.
pub fn build(
    paths: &Paths,
    store: &Store,
    busybox: &Path,
    stamp: Option<&Path>,
) -> Result<PathBuf> {
    let busybox = read(busybox)?;
    let script = read(&paths.root.join("guest-images/linux/rc"))?;
    let stamp = stamp.map(read).transpose()?;
    let key = fingerprint(&[&busybox, stamp.as_deref().unwrap_or_default(), &script]);
    let entry = store.entry(&format!("initramfs_{key:016x}"), |folder| {
        write(&folder.join("initramfs.cpio"), &busybox, stamp.as_deref(), &script)
    })?;
    Ok(entry.join("initramfs.cpio"))
}

/// An initial RAM disk with one program for the guest's search path, to be joined to the other.
///
/// # Errors
/// When the program cannot be read or the result not be written.
pub fn build_addition(store: &Store, name: &str, program: &Path) -> Result<PathBuf> {
    let content = read(program)?;
    let key = fingerprint(&[&content]);
    let entry = store.entry(&format!("{name}_{key:016x}"), |folder| {
        let mut archive = Archive::create(&folder.join("addition.cpio"))?;
        archive.file(&format!("usr/bin/{name}"), 0o755, &content)?;
        archive.finish()?;
        Ok(())
    })?;
    Ok(entry.join("addition.cpio"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Tells inputs apart; includes what this file itself adds.
fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    include_str!("initramfs.rs").hash(&mut hasher);
    parts.hash(&mut hasher);
    hasher.finish()
}

fn write(path: &Path, busybox: &[u8], stamp: Option<&[u8]>, script: &[u8]) -> Result<()> {
    let mut archive = Archive::create(path)?;
    for folder in FOLDERS {
        archive.directory(folder, 0o755)?;
    }
    // The kernel opens it before /dev is mounted.
    archive.character_device("dev/console", 5, 1)?;
    archive.file("bin/busybox", 0o755, busybox)?;
    archive.symlink("bin/sh", "busybox")?;
    archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\n")?;
    archive.file("etc/rc", 0o755, script)?;
    match stamp {
        Some(stamp) => archive.file("init", 0o755, stamp)?,
        None => archive.symlink("init", "etc/rc")?,
    };
    archive.finish()?;
    Ok(())
}
