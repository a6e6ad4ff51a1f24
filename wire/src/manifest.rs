// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the co-kernel is asked to run.

use alloc::{string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

/// Version of [`Manifest`] and [`RunReport`](crate::RunReport); both sides refuse any other.
pub const FORMAT_VERSION: u32 = 2;

/// Name of the bundle member that holds the manifest.
pub const MANIFEST_NAME: &str = "manifest.json";

/// Everything one start of the co-kernel is to run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// Run one after the other.
    pub stages: Vec<Stage>,
}

/// VMs that run at once, each vCPU on a core of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The VMs of this stage; all are created before the first starts.
    pub vms: Vec<VmDescription>,
    /// How often to create, run and destroy them; at least once.
    #[serde(default = "once")]
    pub repeat: u32,
}

const fn once() -> u32 {
    1
}

/// One virtual machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmDescription {
    /// Name in logs and in the report.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// How guest-physical addresses are translated; by default as the CPU can do it best.
    #[serde(default)]
    pub paging: Option<Paging>,
    /// How shadow paging is set up, where it is used.
    #[serde(default)]
    pub shadow: ShadowSettings,
    /// Who does the work of the local APICs.
    #[serde(default)]
    pub apic: Apic,
    /// Bundle member with the kernel, or whatever is started in its place.
    pub kernel: String,
    /// How it is started.
    #[serde(default)]
    pub start: Start,
    /// Files that are loaded beside the kernel: modules. For Linux they are joined to make the
    /// initial RAM disk. Not for firmware.
    #[serde(default)]
    pub modules: Vec<Module>,
    /// Kernel command line. Not for firmware.
    #[serde(default)]
    pub command_line: String,
    /// Where the first serial port leads.
    #[serde(default)]
    pub console: GuestConsole,
    /// I/O port of the optional device with which a guest ends its VM and gives an exit
    /// code; none by default.
    #[serde(default)]
    pub exit_port: Option<u16>,
    /// Ends the VM after so many milliseconds; never by default.
    #[serde(default)]
    pub time_limit_ms: Option<u64>,
    /// Spoils an entry of the first vCPU, to see what comes of it. Only images that are built
    /// with the feature `fault-injection` do so; others refuse the VM.
    #[serde(default)]
    pub entry_fault: Option<EntryFault>,
    /// Has calls fail that this VM makes of its host, to see what comes of it. Only images that
    /// are built with the feature `fault-injection` do so; others refuse the VM.
    #[serde(default)]
    pub host_fault: Option<HostFault>,
}

/// A call of the host that is made to fail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFault {
    /// The call.
    pub call: HostCall,
    /// Which one of the VM's, from its creation on; the first is 1.
    pub at: u64,
    /// All of them from there on.
    #[serde(default)]
    pub lasting: bool,
}

/// The calls of the host that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostCall {
    /// Memory is refused.
    AllocatePages,
    /// A CPU is refused.
    RunOn,
    /// A kick is lost.
    Kick,
    /// A timer does not come.
    ArmTimer,
}

impl HostCall {
    /// The name, as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllocatePages => "allocate_pages",
            Self::RunOn => "run_on",
            Self::Kick => "kick",
            Self::ArmTimer => "arm_timer",
        }
    }
}

/// An entry into the guest that is made to fail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryFault {
    /// What of the control block is spoiled, as the backend names it.
    pub what: String,
    /// Number of the entry; the first is 1.
    pub at_entry: u64,
}

/// How the kernel file is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// As its format wants, which is detected: Linux bzImage, ELF with a PVH note, multiboot,
    /// Multiboot2.
    #[default]
    Detect,
    /// It is a flat image without any format.
    Raw {
        /// Guest-physical address of its first byte.
        load_address: u64,
        /// Where it is entered, in bytes from its start.
        entry_offset: u64,
        /// Mode of the CPU then.
        mode: RawMode,
    },
    /// It is firmware, whose last byte is the last one below 4 GiB, and the CPU starts there as
    /// after reset.
    Firmware,
}

/// Mode of the CPU when a flat image is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawMode {
    /// 32-bit protected mode without paging.
    #[default]
    Protected,
    /// Real mode.
    Real,
}

/// A file that is loaded beside the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Bundle member.
    pub image: String,
    /// A text for the kernel; not for Linux.
    #[serde(default)]
    pub command_line: String,
}

/// How guest-physical addresses are translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paging {
    /// By the CPU: nested page tables (AMD) or extended page tables (Intel).
    Nested,
    /// By shadow page tables that the VMM keeps.
    Shadow,
}

/// Who does the work of a VM's local APICs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Apic {
    /// The CPU as far as it can, and the VMM the rest.
    #[default]
    Hardware,
    /// The VMM alone.
    Emulated,
}

impl Paging {
    /// The name, as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Shadow => "shadow",
        }
    }
}

/// Settings of shadow paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowSettings {
    /// Most bytes of shadow tables; by default a sixty-fourth of the guest's memory, from 2 MiB
    /// to 64 MiB.
    #[serde(default)]
    pub budget_bytes: Option<u64>,
    /// Keep shadow tables when the guest loads CR3.
    #[serde(default = "yes")]
    pub cache: bool,
}

const fn yes() -> bool {
    true
}

impl Default for ShadowSettings {
    fn default() -> Self {
        Self { budget_bytes: None, cache: true }
    }
}

/// Where a guest's first serial port leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestConsole {
    /// The machine's first serial port. At most one VM of a stage.
    #[default]
    Serial,
    /// The co-kernel's log, a line at a time, each marked with the VM's name.
    Log,
}

/// Why a manifest was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestError {
    /// Not JSON, or not of the right shape.
    Syntax(String),
    /// Written for another version.
    Version(u32),
    /// Well formed but not meaningful; says what and where.
    Invalid(String),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "{MANIFEST_NAME}: {why}"),
            Self::Version(found) => {
                write!(f, "{MANIFEST_NAME}: version {found}, but this is {FORMAT_VERSION}")
            }
            Self::Invalid(why) => write!(f, "{MANIFEST_NAME}: {why}"),
        }
    }
}

impl core::error::Error for ManifestError {}

impl Manifest {
    /// Reads and validates a manifest.
    ///
    /// # Errors
    /// A [`ManifestError`] that says what is wrong.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|e| ManifestError::Syntax(alloc::format!("{e}")))?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// A [`ManifestError`] that names the stage or VM at fault.
    pub fn validate(&self) -> Result<(), ManifestError> {
        if self.version != FORMAT_VERSION {
            return Err(ManifestError::Version(self.version));
        }
        self.stages.iter().enumerate().try_for_each(|(index, stage)| stage.validate(index))
    }
}

impl Stage {
    fn validate(&self, index: usize) -> Result<(), ManifestError> {
        let invalid = |why: String| Err(ManifestError::Invalid(why));
        if self.vms.is_empty() || self.repeat == 0 {
            return invalid(alloc::format!("stage {index} has nothing to run"));
        }
        for vm in &self.vms {
            if vm.vcpus == 0 || vm.memory_mib == 0 {
                return invalid(alloc::format!("VM '{}' has no vCPU or no memory", vm.name));
            }
            let extras = !vm.modules.is_empty() || !vm.command_line.is_empty();
            if vm.start == Start::Firmware && extras {
                return invalid(alloc::format!(
                    "VM '{}' starts by firmware, which takes neither modules nor a command line",
                    vm.name
                ));
            }
            if self.vms.iter().filter(|other| other.name == vm.name).count() > 1 {
                return invalid(alloc::format!("stage {index} has two VMs named '{}'", vm.name));
            }
        }
        if self.vms.iter().filter(|vm| vm.console == GuestConsole::Serial).count() > 1 {
            return invalid(alloc::format!("stage {index} gives the serial port to two VMs"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};

    fn vm(name: &str) -> VmDescription {
        serde_json::from_str(&format!(
            r#"{{"name":"{name}","memory_mib":64,"vcpus":1,"kernel":"k"}}"#
        ))
        .unwrap()
    }

    fn manifest(vms: Vec<VmDescription>) -> Manifest {
        Manifest { version: FORMAT_VERSION, stages: vec![Stage { vms, repeat: 1 }] }
    }

    #[test]
    fn round_trips_through_json() {
        let module = Module { image: "m".into(), command_line: "text".into() };
        let raw = Start::Raw { load_address: 0x7C00, entry_offset: 2, mode: RawMode::Real };
        for start in [Start::Detect, raw, Start::Firmware] {
            let modules = if start == Start::Firmware { vec![] } else { vec![module.clone()] };
            let before = manifest(vec![VmDescription { start, modules, ..vm("a") }]);
            let json = serde_json::to_vec(&before).unwrap();
            assert_eq!(Manifest::from_json(&json), Ok(before));
        }
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let no_cpu = VmDescription { vcpus: 0, ..vm("a") };
        let line = VmDescription { start: Start::Firmware, command_line: "a".into(), ..vm("a") };
        for bad in
            [vec![], vec![no_cpu], vec![line], vec![vm("a"), vm("a")], vec![vm("a"), vm("b")]]
        {
            assert!(matches!(manifest(bad).validate(), Err(ManifestError::Invalid(_))));
        }
        let log = VmDescription { console: GuestConsole::Log, ..vm("b") };
        assert_eq!(manifest(vec![vm("a"), log]).validate(), Ok(()));
    }

    #[test]
    fn refuses_another_version_and_unknown_fields() {
        let other = Manifest { version: 99, ..manifest(vec![vm("a")]) };
        assert_eq!(other.validate(), Err(ManifestError::Version(99)));
        let json = br#"{"version":2,"stages":[],"surprise":1}"#;
        assert!(matches!(Manifest::from_json(json), Err(ManifestError::Syntax(_))));
    }
}
