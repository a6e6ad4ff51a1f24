// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a vendor's code may use: the machine and the neutral exit, but no device, no policy and
//! no emulation.

use super::source::{NamedPath, Source};
use super::{VENDORS, Vendor};

/// Crates. Others of this workspace are above the library, or for tests.
const CRATES: &[&str] =
    &["alloc", "bitfield_struct", "bitflags", "core", "host_iface", "log", "x86"];

/// Crates of this workspace that are not among them.
const FOREIGN: &[&str] = &["cokernel", "host_mock", "vmm_devices", "wire"];

/// What of the library: each entry stands for all that is in it.
const ALLOWED: &[&[&str]] = &[
    // The neutral exit and its parts.
    &["AccessWidth"],
    &["ApicAccess"],
    &["ApicAccessKind"],
    &["ControlRegisterAccess"],
    &["BriefExit"],
    &["Event"],
    &["Exit"],
    &["GuestPhysAddr"],
    &["GuestVirtAddr"],
    &["NestedPageFault"],
    &["PAGE_SIZE"],
    &["PortIo"],
    &["TaskSwitch"],
    &["TaskSwitchSource"],
    &["Trapped"],
    // The seam itself, and architectural state.
    &["backend"],
    &["state"],
    // What hardware may hold of a local APIC while the guest runs.
    &["apic", "ApicMode"],
    &["apic", "InterruptState"],
    &["apic", "VectorSet"],
    // Registers of the CPU that no control block holds.
    &["cpu_interrupts"],
    // What both world switches do to general-purpose registers.
    &["switch_registers"],
    &["debug"],
    &["fpu"],
    &["host_registers"],
    &["tsc_aux"],
    // Pages of the host, and the forms of tables that the CPU reads.
    &["memory", "OwnedPages"],
    &["paging", "LongModeEntries"],
    &["paging", "NestedEntries"],
    &["paging", "shadow", "on_shadow_tables"],
    &["trap_map"],
    // The vendor's name, and what the architecture says of registers that the CPU checks.
    &["cpuid", "Vendor"],
    &["msr", "PAT_RESET"],
    &["msr", "validate_pat"],
];

/// Adds what `source`, which is one of the vendor's files, may not name.
pub fn check(source: &Source, vendor: &Vendor, breaches: &mut Vec<String>) {
    for path in source.paths() {
        if let Some(why) = breach(&path, vendor) {
            breaches.push(format!("{}:{}: {why}", source.name, path.line));
        }
    }
}

fn breach(path: &NamedPath, vendor: &Vendor) -> Option<String> {
    let first = path.parts.first()?.as_str();
    if FOREIGN.contains(&first) {
        let list = CRATES.join(", ");
        return Some(format!("{first} is none of the crates for a vendor's code: {list}"));
    }
    // The files lie flat in their folder, so this leaves it.
    let leaves = path.is_within(&["super", "super"]);
    let inner = match (first, leaves) {
        (_, true) => path.parts.get(2..)?,
        ("crate", _) => path.parts.get(1..)?,
        _ => return None,
    };
    // `pub(crate)` names nothing.
    let module = inner.first()?;
    let own = module == vendor.module;
    let is_allowed = |allowed: &&&[&str]| {
        inner.len() >= allowed.len() && inner.iter().zip(**allowed).all(|(a, b)| a == b)
    };
    if own || ALLOWED.iter().any(|allowed| is_allowed(&allowed)) {
        return None;
    }
    let other = VENDORS.iter().any(|other| module == other.module);
    let what = if other { "another vendor's" } else { "no vendor's business" };
    Some(format!("{} is {what}: see ALLOWED in xtask/src/lint/seam/inside.rs", path.text()))
}
