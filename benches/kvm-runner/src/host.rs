// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Linux around the runner: file systems, modules, the end.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::stdio::stdout;
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::tcdrain;

use crate::cpus;
use crate::options::Options;

/// Where the initial RAM disk has the modules.
const MODULES: &str = "/modules";

/// The module whose parameters are ours to set.
const KVM_AMD: &str = "kvm-amd.ko";

/// What an xz file begins with; some distributions compress their modules.
const XZ: [u8; 6] = [0xFD, b'7', b'z', b'X', b'Z', 0];
/// Has the kernel decompress a module (linux/module.h: `MODULE_INIT_COMPRESSED_FILE`).
const COMPRESSED: i32 = 4;

/// Makes `/dev/kvm` and `/proc` be there.
///
/// # Errors
/// When a file system cannot be mounted or a module not be loaded.
pub fn prepare(options: &Options) -> Result<()> {
    fs::create_dir_all("/dev")?;
    match mount("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), None) {
        Ok(()) | Err(Errno::BUSY) => {}
        Err(error) => return Err(error).context("cannot mount /dev"),
    }
    fs::create_dir_all("/proc")?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None).context("cannot mount /proc")?;
    fs::create_dir_all("/sys")?;
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).context("cannot mount /sys")?;
    cpus::bring_up()?;
    load_modules(options)?;
    ensure!(Path::new("/dev/kvm").exists(), "the modules are loaded, but there is no /dev/kvm");
    Ok(())
}

/// Loads all modules. Which needs which is found by trying: one that lacks another's symbols is
/// refused and tried again after the others.
fn load_modules(options: &Options) -> Result<()> {
    let mut waiting: Vec<PathBuf> = fs::read_dir(MODULES)
        .with_context(|| format!("cannot list {MODULES}"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    waiting.sort();
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut refused = Vec::new();
        for path in waiting {
            match load(&path, options) {
                Ok(()) => {}
                Err(Errno::NOENT) => refused.push(path),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot load {}", path.display()));
                }
            }
        }
        ensure!(refused.len() < before, "modules lack others: {refused:?}");
        waiting = refused;
    }
    Ok(())
}

fn load(path: &Path, options: &Options) -> Result<(), Errno> {
    let mut file = File::open(path).map_err(|_| Errno::NODEV)?;
    let mut start = [0; XZ.len()];
    file.read_exact(&mut start).map_err(|_| Errno::NOEXEC)?;
    let flags = if start == XZ { COMPRESSED } else { 0 };
    let parameters = match path.file_name() {
        Some(name) if name == KVM_AMD => format!("npt={}", u8::from(options.nested_paging)),
        _ => String::new(),
    };
    let parameters = CString::new(parameters).map_err(|_| Errno::INVAL)?;
    match finit_module(&file, &parameters, flags) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Switches the machine off, when all that was printed is out.
///
/// # Errors
/// When this process may not do that.
pub fn power_off() -> Result<(), Errno> {
    // Any other process would switch off the user's own machine.
    if std::process::id() != 1 {
        return Err(Errno::PERM);
    }
    // A serial port takes a while, and Linux does not wait for it; what is not one has no need.
    let _ = tcdrain(stdout());
    reboot(RebootCommand::PowerOff)
}
