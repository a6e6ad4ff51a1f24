// SPDX-License-Identifier: MIT OR Apache-2.0
//! What memory the kernel has in use, and what for.

use std::fs;

use anyhow::{Context, Result};

/// Fields of `/proc/meminfo` (Linux, `Documentation/filesystems/proc.rst`) that a VM can change:
/// free memory, memory of programs, and the kernel's own by kind.
const FIELDS: [&str; 8] = [
    "MemFree",
    "AnonPages",
    "Slab",
    "KernelStack",
    "PageTables",
    "SecPageTables",
    "VmallocUsed",
    "Percpu",
];

/// The fields at one moment, in KiB: `NAME=KIB` for each, and `Modules=KIB` for KVM's modules.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn line() -> Result<String> {
    let read = |path| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    Ok(format!("{} Modules={}", fields(&read("/proc/meminfo")?), modules(&read("/proc/modules")?)))
}

fn fields(meminfo: &str) -> String {
    let value = |name: &&str| {
        let found = meminfo.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(':'));
        Some(format!("{name}={}", found?.split_whitespace().next()?))
    };
    FIELDS.iter().filter_map(value).collect::<Vec<_>>().join(" ")
}

/// Sizes of all modules, of which there are none but KVM's.
fn modules(text: &str) -> u64 {
    let sizes = text.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    sizes.sum::<u64>().div_ceil(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_picked_by_their_whole_names() {
        let meminfo =
            "MemTotal: 9 kB\nMemFree:   123 kB\nSlabX: 1 kB\nSlab:  45 kB\nPercpu: 6 kB\n";
        assert_eq!(fields(meminfo), "MemFree=123 Slab=45 Percpu=6");
    }

    #[test]
    fn modules_are_added_up() {
        let text = "kvm_amd 159744 0 - Live 0x0\nkvm 1142784 1 kvm_amd, Live 0x0\n";
        assert_eq!(modules(text), 1272);
    }
}
