// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask check`: what this machine offers and what is missing, without changing anything.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cargo_build::BARE_METAL;
use crate::disk::Need;
use crate::memory::{HostMemory, MIB};
use crate::paths::Paths;
use crate::platform::{accelerator, bochs, qemu};
use crate::setup::{self, Tool, apt, rust};
use crate::{disk, image, process};

/// Memory the default guest takes with everything around it.
const MEMORY_MIB: u64 = 800;

/// Says what this machine offers and what is missing, a line each; changes nothing. Exit status
/// 0 if `run` can do its work.
#[derive(Clone, Copy, Debug, Args)]
pub struct CheckOptions {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How a finding bears on `run`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// There, or good enough.
    Ok,
    /// Not there, and not needed by `run`.
    Optional,
    /// `run` will not work before this is mended.
    Missing,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    detail: String,
}

fn finding(what: &str, verdict: Verdict, detail: impl Into<String>) -> Finding {
    Finding { what: what.to_owned(), verdict, detail: detail.into() }
}

/// Prints the findings; the exit status is 0 if nothing that `run` needs is missing.
///
/// # Errors
/// When the result cannot be put into JSON.
pub fn run(paths: &Paths, options: CheckOptions) -> Result<u8> {
    let findings = look(paths);
    let ready = findings.iter().all(|finding| finding.verdict != Verdict::Missing);
    if options.json {
        let json = serde_json::json!({ "ready": ready, "findings": findings });
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        for finding in &findings {
            let mark = match finding.verdict {
                Verdict::Ok => "ok",
                Verdict::Optional => "-",
                Verdict::Missing => "MISSING",
            };
            println!("{mark:<8} {:<16} {}", finding.what, finding.detail);
        }
        println!("{}", if ready { "ready to run" } else { "not ready: try 'cargo xtask setup'" });
    }
    Ok(u8::from(!ready))
}

fn look(paths: &Paths) -> Vec<Finding> {
    let mut findings = vec![rust_compiler(), rust_target(), qemu_program(), nested_kvm()];
    findings.extend(setup::PACKAGE_TOOLS.map(|tool| program(tool, Verdict::Missing)));
    findings.extend(setup::ISO_TOOLS.map(|tool| program(tool, Verdict::Optional)));
    findings.extend([
        bochs_program(),
        grub_modules(),
        lists(),
        images(paths),
        memory(),
        disk_space(&paths.target),
    ]);
    findings
}

fn rust_compiler() -> Finding {
    match rust::version() {
        Ok(version) => finding("rustc", Verdict::Ok, version),
        Err(error) => finding("rustc", Verdict::Missing, format!("{error:#}")),
    }
}

fn rust_target() -> Finding {
    let detail = match rust::has_target(BARE_METAL) {
        Ok(true) => return finding("Rust target", Verdict::Ok, BARE_METAL),
        Ok(false) if process::on_path("rustup") => {
            let detail = format!("{BARE_METAL}, to be added by: rustup target add {BARE_METAL}");
            return finding("Rust target", Verdict::Missing, detail);
        }
        Ok(false) => format!("{BARE_METAL}, and there is no rustup to add it"),
        Err(error) => format!("{error:#}"),
    };
    finding("Rust target", Verdict::Missing, detail)
}

fn qemu_program() -> Finding {
    match qemu::check_version() {
        Ok(version) => finding("QEMU", Verdict::Ok, version.to_string()),
        Err(error) => finding("QEMU", Verdict::Missing, format!("{error:#}")),
    }
}

fn nested_kvm() -> Finding {
    match accelerator::nested_kvm() {
        Ok(()) => finding("nested KVM", Verdict::Ok, "will be used if the co-kernel agrees"),
        Err(why) => {
            finding("nested KVM", Verdict::Optional, format!("{why}; emulation (TCG) will be used"))
        }
    }
}

fn program(tool: Tool, otherwise: Verdict) -> Finding {
    if tool.present() {
        finding(tool.program, Verdict::Ok, "found")
    } else {
        finding(tool.program, otherwise, format!("comes in package {}", tool.package))
    }
}

fn bochs_program() -> Finding {
    match bochs::check() {
        Ok(()) => finding("Bochs", Verdict::Ok, "found, with its firmware"),
        Err(error) => finding("Bochs", Verdict::Optional, format!("{error:#}")),
    }
}

fn grub_modules() -> Finding {
    if Path::new(setup::GRUB_BIOS_MODULES).exists() {
        finding("GRUB for BIOS", Verdict::Ok, "found")
    } else {
        let detail = format!("comes in package {}", setup::GRUB_BIOS_PACKAGE);
        finding("GRUB for BIOS", Verdict::Optional, detail)
    }
}

fn lists() -> Finding {
    if apt::has_lists() {
        finding("package lists", Verdict::Ok, "found")
    } else {
        finding("package lists", Verdict::Optional, "to be fetched by: apt-get update")
    }
}

fn images(paths: &Paths) -> Finding {
    let cached = image::cached(paths);
    if cached.is_empty() {
        finding("guest images", Verdict::Optional, "none yet, the first run fetches them (30 MiB)")
    } else {
        finding("guest images", Verdict::Ok, cached.join(", "))
    }
}

fn memory() -> Finding {
    match HostMemory::read() {
        Ok(memory) => enough("memory", memory.available / MIB, MEMORY_MIB),
        Err(error) => finding("memory", Verdict::Missing, format!("{error:#}")),
    }
}

fn disk_space(target: &Path) -> Finding {
    let Need(whole) = Need::RUN;
    match disk::ensure(target, Need::RUN) {
        Ok(()) => {
            let free = disk::free(target).map_or("unknown".into(), |free| format!("{free} MiB"));
            finding("disk", Verdict::Ok, format!("{free} available, {whole} MiB wanted"))
        }
        Err(error) => finding("disk", Verdict::Missing, error.to_string()),
    }
}

fn enough(what: &str, found: u64, needed: u64) -> Finding {
    let verdict = if found >= needed { Verdict::Ok } else { Verdict::Missing };
    finding(what, verdict, format!("{found} MiB available, {needed} MiB wanted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_missing() {
        assert_eq!(enough("memory", 10, 11).verdict, Verdict::Missing);
        assert_eq!(enough("memory", 11, 11).verdict, Verdict::Ok);
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let tool = Tool { program: "no-such-program", package: "some-package" };
        let finding = program(tool, Verdict::Optional);
        assert_eq!(finding.verdict, Verdict::Optional);
        assert!(finding.detail.contains("some-package"));
    }
}
