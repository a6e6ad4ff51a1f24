// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest images, made from the distribution's own packages and cached by their inputs.

mod debian;
mod initramfs;
mod lists;
mod store;
mod vmlinux;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::cargo_build;
use crate::paths::Paths;
use store::Store;

/// Package whose kernel is the default guest.
pub const DEFAULT_KERNEL: &str = "linux-image-cloud-amd64";

/// Package of the 32-bit kernel that the tests boot.
pub const PAE_KERNEL: &str = "linux-image-686-pae:i386";

/// The untouched kernel of a distribution's package.
///
/// `package` may be a meta package such as `linux-image-amd64`; its dependency is followed. A
/// 32-bit package is named with its architecture, as `linux-image-686-pae:i386`.
/// Fetched but not installed; taken from the cache while the package lists name the same version,
/// and when they cannot be read.
///
/// # Errors
/// When the package cannot be had and no earlier version of it is cached.
pub fn kernel(paths: &Paths, package: &str) -> Result<PathBuf> {
    let store = Store::open(paths)?;
    Ok(debian::fetch(&store, package, debian::Member::Kernel)?.join("vmlinuz"))
}

/// The ELF file inside the kernel of a distribution's package, which starts by PVH; see [`kernel`].
///
/// # Errors
/// When the package cannot be had and no earlier version of it is cached, or when its kernel is
/// compressed in another way than by LZ4.
pub fn vmlinux(paths: &Paths, package: &str) -> Result<PathBuf> {
    let store = Store::open(paths)?;
    let fetched = debian::fetch(&store, package, debian::Member::Kernel)?;
    let name = fetched.file_name().context("an entry of the cache has a name")?.to_string_lossy();
    let entry = store.entry(&format!("{name}_elf"), |folder| {
        let image = fetched.join("vmlinuz");
        let unread = || format!("cannot read {}", image.display());
        let elf = vmlinux::unpack(&fs::read(&image).with_context(unread)?)
            .with_context(|| format!("cannot unpack {}", image.display()))?;
        let made = folder.join("vmlinux");
        fs::write(&made, elf).with_context(|| format!("cannot write {}", made.display()))
    })?;
    Ok(entry.join("vmlinux"))
}

/// The folder with the KVM modules for the kernel of a distribution's package; see [`kernel`].
///
/// # Errors
/// When the package cannot be had and no earlier version of it is cached.
pub fn kvm_modules(paths: &Paths, package: &str) -> Result<PathBuf> {
    let store = Store::open(paths)?;
    debian::fetch(&store, package, debian::Member::KvmModules)
}

/// The initial RAM disk of Linux guests: busybox and `guest-images/linux/rc`.
///
/// # Errors
/// When busybox cannot be fetched or `init-stamp` cannot be built.
pub fn initramfs(paths: &Paths, architecture: Architecture) -> Result<PathBuf> {
    let stamp = match architecture {
        Architecture::Amd64 => Some(initramfs::build_stamp(paths)?),
        Architecture::I386 => None,
    };
    let store = Store::open(paths)?;
    let package = format!("busybox-static{}", architecture.suffix());
    let busybox = debian::fetch(&store, &package, debian::Member::Busybox)?;
    let busybox = busybox.join("busybox");
    initramfs::build(paths, &store, &busybox, stamp.as_deref())
}

/// An initial RAM disk that adds the program `guest-images/self-test` to the default guest.
///
/// # Errors
/// When it cannot be built.
pub fn self_test(paths: &Paths) -> Result<PathBuf> {
    let program = cargo_build::linux_program(paths, "self-test")?;
    initramfs::build_addition(&Store::open(paths)?, "self-test", &program)
}

/// What the cache holds, without changing or waiting for anything.
pub fn cached(paths: &Paths) -> Vec<String> {
    store::entries(&paths.images())
}
