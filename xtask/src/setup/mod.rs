// SPDX-License-Identifier: MIT OR Apache-2.0
//! Installing what is missing: Debian packages and Rust targets.

pub mod apt;
pub mod rust;

use anyhow::Result;

use crate::cargo_build::BARE_METAL;
use crate::platform::bochs::config;
use crate::process;

/// A program and the Debian package it comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tool {
    /// Name on the search path.
    pub program: &'static str,
    /// Debian package.
    pub package: &'static str,
}

/// Runs guests.
pub const QEMU: Tool = Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" };

/// Runs guests on CPU models that QEMU does not have.
pub const BOCHS: Tool = Tool { program: "bochs", package: "bochs" };

/// A file and the Debian package it comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Where it is.
    pub path: &'static str,
    /// Debian package.
    pub package: &'static str,
}

impl Part {
    /// Whether it is there.
    pub fn present(self) -> bool {
        std::path::Path::new(self.path).exists()
    }
}

/// All that Bochs needs.
pub const BOCHS_PARTS: [Part; 4] = [
    Part { path: "/usr/bin/bochs", package: BOCHS.package },
    Part {
        path: "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so",
        package: "bochs-term",
    },
    Part { path: config::BIOS, package: "bochsbios" },
    Part { path: config::VGA_BIOS, package: "vgabios" },
];

/// Make guest images; part of every Debian system, but perhaps not of another one.
pub const PACKAGE_TOOLS: [Tool; 4] = [
    Tool { program: "apt-get", package: "apt" },
    Tool { program: "apt-cache", package: "apt" },
    Tool { program: "dpkg-deb", package: "dpkg" },
    Tool { program: "tar", package: "tar" },
];

/// Make ISO images.
pub const ISO_TOOLS: [Tool; 3] = [
    Tool { program: "grub-mkrescue", package: "grub-common" },
    Tool { program: "xorriso", package: "xorriso" },
    Tool { program: "mformat", package: "mtools" },
];

/// GRUB's modules for PC BIOS; has no program on the search path.
pub const GRUB_BIOS_PACKAGE: &str = "grub-pc-bin";
/// Where [`GRUB_BIOS_PACKAGE`] puts its modules.
pub const GRUB_BIOS_MODULES: &str = "/usr/lib/grub/i386-pc/multiboot2.mod";

impl Tool {
    /// Whether it is there.
    pub fn present(self) -> bool {
        process::on_path(self.program)
    }
}

/// Installs the packages of those tools that are missing.
///
/// # Errors
/// When that needs rights this user does not have: the exact command to run. When it fails:
/// why.
pub fn ensure_tools(tools: &[Tool]) -> Result<()> {
    let mut missing: Vec<&str> =
        tools.iter().filter(|tool| !tool.present()).map(|tool| tool.package).collect();
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { apt::install(&missing) }
}

/// Everything `run` and `test` need.
///
/// # Errors
/// As [`ensure_tools`].
pub fn ensure_all(iso: bool) -> Result<()> {
    ensure_tools(&PACKAGE_TOOLS)?;
    ensure_tools(&[QEMU])?;
    if iso {
        ensure_iso_tools()?;
    }
    rust::ensure_target(BARE_METAL)
}

/// Everything that runs on Bochs need.
///
/// # Errors
/// As [`ensure_tools`].
pub fn ensure_bochs() -> Result<()> {
    let missing: Vec<&str> =
        BOCHS_PARTS.iter().filter(|part| !part.present()).map(|part| part.package).collect();
    if !missing.is_empty() {
        apt::install(&missing)?;
    }
    ensure_iso_tools()
}

/// Everything `iso` needs.
///
/// # Errors
/// As [`ensure_tools`].
pub fn ensure_iso_tools() -> Result<()> {
    ensure_tools(&ISO_TOOLS)?;
    if std::path::Path::new(GRUB_BIOS_MODULES).exists() {
        return Ok(());
    }
    apt::install(&[GRUB_BIOS_PACKAGE])
}
