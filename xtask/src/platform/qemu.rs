// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's q35 machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::accelerator::Accelerator;
use super::{Boot, MachineConfig};
use crate::setup::QEMU;

/// Oldest version that works: earlier ones lack what the co-kernel needs of SVM and PVH.
pub const OLDEST: Version = Version { major: 7, minor: 0 };

/// CPU model of TCG with everything it can emulate, SVM among it.
pub const TCG_CPU: &str = "max";

/// Ticks of the time-stamp counter in a second of a deterministic machine: one for each
/// nanosecond, and that is one instruction.
pub const DETERMINISTIC_TSC_HZ: u64 = 1_000_000_000;

/// A version of QEMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The installed version.
///
/// # Errors
/// When QEMU is missing or does not say.
pub fn version() -> Result<Version> {
    let output = Command::new(QEMU.program).arg("--version").output().with_context(|| {
        format!("cannot start {}: run 'cargo xtask setup' to install it", QEMU.program)
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&text)
        .with_context(|| format!("{} --version says nothing known: {}", QEMU.program, text.trim()))
}

/// Checks the installed version.
///
/// # Errors
/// When QEMU is missing or too old; says what is needed.
pub fn check_version() -> Result<Version> {
    let found = version()?;
    if found < OLDEST {
        bail!(
            "QEMU {found} is too old, {OLDEST} or later is needed: install a newer {} package",
            QEMU.package
        );
    }
    Ok(found)
}

fn parse_version(text: &str) -> Option<Version> {
    let number = text.strip_prefix("QEMU emulator version ")?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some(Version { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
}

/// The command that starts `machine`, its first serial port on the standard streams.
pub fn command(machine: &MachineConfig, accelerator: Accelerator) -> Command {
    let mut command = Command::new(QEMU.program);
    command.args(["-machine", "q35", "-accel", accelerator.name()]);
    command.args(["-cpu", &machine.cpu]);
    command.args(["-smp", &machine.cpus.to_string()]);
    command.args(["-m", &machine.memory_mib.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"]);
    command.arg("-no-reboot");
    command.args(["-chardev", "stdio,id=guest,mux=off,signal=off", "-serial", "chardev:guest"]);
    if let Some(log) = &machine.log {
        command.args(["-chardev", &format!("file,id=log,path={}", escaped(log))]);
        command.args(["-serial", "chardev:log"]);
    }
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    if machine.deterministic {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    match &machine.boot {
        Boot::Kernel { kernel, initrd, command_line } => {
            command.arg("-kernel").arg(kernel).args(["-append", command_line]);
            if let Some(initrd) = initrd {
                command.arg("-initrd").arg(initrd);
            }
        }
        Boot::Multiboot { kernel, modules, command_line } => {
            command.arg("-kernel").arg(kernel).args(["-append", command_line]);
            if !modules.is_empty() {
                let modules: Vec<String> = modules.iter().map(|module| escaped(module)).collect();
                command.args(["-initrd", &modules.join(",")]);
            }
        }
        Boot::Firmware(image) => {
            command.arg("-bios").arg(image);
        }
        Boot::Iso(iso) => {
            command.args(["-cdrom", &iso.to_string_lossy(), "-boot", "d"]);
        }
    }
    command
}

/// A path inside a QEMU option: commas are doubled.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n";
        assert_eq!(parse_version(debian), Some(Version { major: 7, minor: 2 }));
        assert_eq!(
            parse_version("QEMU emulator version 10.0.0"),
            Some(Version { major: 10, minor: 0 })
        );
        assert_eq!(parse_version("something else"), None);
        assert!(Version { major: 6, minor: 9 } < OLDEST);
        assert!(Version { major: 10, minor: 0 } > OLDEST);
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(escaped(Path::new("/a,b/c")), "/a,,b/c");
    }
}
