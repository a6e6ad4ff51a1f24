// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask iso`: an ISO image that GRUB boots, for machines without QEMU's `-kernel`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::paths::Paths;
use crate::platform::Platform;
use crate::run::folder::RunFolder;
use crate::run::job::Job;
use crate::run::options::GuestOptions;
use crate::run::plan::{self, Guest};
use crate::{cargo_build, process, setup};

/// Makes an ISO image of the co-kernel and a guest, for Bochs and real machines with BIOS.
#[derive(Clone, Debug, Args)]
pub struct IsoOptions {
    /// Guest.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// File to make [default: target/alcazar/alcazar.iso]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Run CMD in the guest's shell and power off, in place of a shell on the serial port
    #[arg(long, value_name = "CMD", allow_hyphen_values = true)]
    pub exec: Option<String>,
    /// Machine it is for: on a slow one a Linux kernel is told to save time
    #[arg(long, value_enum)]
    pub platform: Option<Platform>,
    /// CPU model of that machine, about which a Linux kernel may have to know
    #[arg(long, value_name = "MODEL", requires = "platform")]
    pub cpu: Option<String>,
    /// Command line of the co-kernel
    #[arg(long, value_name = "STRING", default_value = "", allow_hyphen_values = true)]
    pub cokernel_append: String,
}

/// Makes the image and prints its path.
///
/// # Errors
/// When a part cannot be had or the image not be written; there is no half-made image then.
pub fn run(paths: &Paths, options: &IsoOptions) -> Result<u8> {
    options.guest.check()?;
    if options.cokernel_append.contains(['\n', '"', '\\', '$']) {
        bail!("--cokernel-append: GRUB would misread quotes, backslashes, $ and line ends");
    }
    plan::check_files(&options.guest)?;
    let platform = options.platform.unwrap_or(Platform::Qemu);
    let model = platform.bochs_model(options.cpu.as_deref())?;
    setup::ensure_iso_tools()?;
    let output = options.output.clone().unwrap_or_else(|| paths.target.join("alcazar/alcazar.iso"));
    let folder = RunFolder::create(paths)?;
    let job = match &options.exec {
        Some(command) => Job::Command(command.clone()),
        None => Job::Shell { size: None, term: "vt100".into() },
    };
    let guest = Guest::find(paths, &options.guest, model, job, &folder)?;
    let bundle = folder.file("bundle.cpio");
    guest.write_bundle(&bundle, &options.guest, None)?;
    make(&output, &cargo_build::cokernel(paths)?, &bundle, &options.cokernel_append)
        .context("--output")?;
    println!("{}", output.display());
    Ok(0)
}

/// Makes an image that boots `cokernel` with `bundle`, whole or not at all.
///
/// # Errors
/// When a part cannot be read or the image not be written.
pub fn make(output: &Path, cokernel: &Path, bundle: &Path, command_line: &str) -> Result<()> {
    let parts = [("alcazar", cokernel), ("bundle.cpio", bundle)];
    write(output, &parts, &grub_configuration(command_line))
}

/// Makes an image that boots a Linux kernel with an initial RAM disk, whole or not at all. GRUB
/// would misread quotes, backslashes and `$` in the command line.
///
/// # Errors
/// When a part cannot be read or the image not be written.
pub fn make_linux(output: &Path, kernel: &Path, initrd: &Path, command_line: &str) -> Result<()> {
    let parts = [("vmlinuz", kernel), ("initrd", initrd)];
    write(output, &parts, &grub_linux_configuration(command_line))
}

/// Makes an image with these parts in `/boot` and this configuration of GRUB.
fn write(output: &Path, parts: &[(&str, &Path)], configuration: &str) -> Result<()> {
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(std::path::Path::new("."));
    let work = tempfile::Builder::new()
        .prefix(".alcazar-iso-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot write {}", output.display()))?;
    let boot = work.path().join("root/boot");
    fs::create_dir_all(boot.join("grub"))?;
    for (name, part) in parts {
        fs::copy(part, boot.join(name))
            .with_context(|| format!("cannot copy {}", part.display()))?;
    }
    fs::write(boot.join("grub/grub.cfg"), configuration)?;

    let made = work.path().join("alcazar.iso");
    let mut command = Command::new("grub-mkrescue");
    command.arg("-o").arg(&made).arg("-d").arg(grub_modules()?).arg(work.path().join("root"));
    process::succeed(&mut command, "making the ISO image")?;
    fs::rename(&made, output).with_context(|| format!("cannot write {}", output.display()))
}

/// Folder of GRUB's modules for BIOS: the only kind of machine whose firmware the co-kernel is
/// started from.
fn grub_modules() -> Result<PathBuf> {
    let module = PathBuf::from(setup::GRUB_BIOS_MODULES);
    Ok(module.parent().context("the module is in a folder")?.to_owned())
}

fn grub_configuration(command_line: &str) -> String {
    format!(
        "set timeout=0\n\
         menuentry Alcazar {{\n\
         \x20   multiboot2 /boot/alcazar {command_line}\n\
         \x20   module2 /boot/bundle.cpio\n\
         \x20   boot\n\
         }}\n"
    )
}

fn grub_linux_configuration(command_line: &str) -> String {
    format!(
        "set timeout=0\n\
         menuentry Linux {{\n\
         \x20   linux /boot/vmlinuz {command_line}\n\
         \x20   initrd /boot/initrd\n\
         \x20   boot\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_gets_linux_and_its_disk() {
        let text = grub_linux_configuration("quiet -- x=1");
        assert!(text.contains("linux /boot/vmlinuz quiet -- x=1\n"));
        assert!(text.contains("initrd /boot/initrd\n"));
    }

    #[test]
    fn grub_gets_kernel_and_module() {
        let text = grub_configuration("a=b");
        assert!(text.contains("multiboot2 /boot/alcazar a=b\n"));
        assert!(text.contains("module2 /boot/bundle.cpio\n"));
    }
}
