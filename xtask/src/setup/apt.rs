// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian packages.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::process;

/// Options of every installation: only what is needed, no questions.
const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--quiet"];

/// Where the machine's package lists are.
const LISTS: &str = "/var/lib/apt/lists";

/// How this user can run apt-get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rights {
    Root,
    Sudo,
    None,
}

fn rights() -> Rights {
    if rustix::process::geteuid().is_root() {
        return Rights::Root;
    }
    let sudo = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if sudo.is_ok_and(|status| status.success()) { Rights::Sudo } else { Rights::None }
}

/// Whether the package lists have been fetched.
pub fn has_lists() -> bool {
    has_lists_in(Path::new(LISTS))
}

/// Whether there are package lists in `folder`.
pub fn has_lists_in(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|folder| {
        folder.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

/// When the package lists last changed, if there are any.
pub fn lists_changed() -> Option<SystemTime> {
    std::fs::metadata(LISTS).ok()?.modified().ok()
}

/// Fetches the package lists.
///
/// # Errors
/// When that needs other rights (names the command to run), or fails.
pub fn update() -> Result<()> {
    run(&["update", "--quiet"], "fetching the package lists")
}

/// Installs `packages`, after saying so.
///
/// # Errors
/// When that needs other rights (names the command to run), or fails.
pub fn install(packages: &[&str]) -> Result<()> {
    if !process::on_path("apt-get") {
        bail!(
            "these programs are missing and there is no apt-get to install them: install the \
             equivalents of the Debian packages {}",
            packages.join(" ")
        );
    }
    let mut arguments = INSTALL.to_vec();
    arguments.extend(packages);
    let what = format!("installing {}", packages.join(" "));
    if rights() != Rights::None && !has_lists() {
        update()?;
    }
    match run(&arguments, &what) {
        // Lists that are too old name files which are gone.
        Err(_) if rights() != Rights::None => {
            update()?;
            run(&arguments, &what)
        }
        result => result,
    }
}

fn run(arguments: &[&str], what: &str) -> Result<()> {
    let mut command = match rights() {
        Rights::Root => Command::new("apt-get"),
        Rights::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            sudo
        }
        Rights::None => {
            bail!("{what} needs root or sudo; please run: {}", manual_command(arguments))
        }
    };
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    eprintln!("setup: {what}: {}", process::command_line(&command));
    process::succeed(&mut command, what).context("setup failed")?;
    Ok(())
}

fn manual_command(arguments: &[&str]) -> String {
    format!("sudo apt-get {}", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_type_is_exact() {
        let mut arguments = INSTALL.to_vec();
        arguments.push("qemu-system-x86");
        assert_eq!(
            manual_command(&arguments),
            "sudo apt-get install --yes --no-install-recommends --quiet qemu-system-x86"
        );
    }
}
