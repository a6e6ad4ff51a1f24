// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guests of the matrix.

use anyhow::Result;
use wire::RunReport;

use super::{cost, entry_faults};
use crate::image;

/// A guest and how it is run.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Name in the table.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// What a guest is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// An unmodified Linux kernel, which is looked around in.
    Linux(Linux),
    /// The bare-metal guest of the same name, which tests its machine by itself. How it is run
    /// is said in `test/bare_metal.rs`.
    BareMetal {
        /// What its report has to show besides.
        check: Option<Check>,
    },
    /// Small VMs one after the other, in which entries are made to fail, and sound ones among
    /// them.
    EntryFaults(&'static [EntryFault]),
}

/// An entry that is made to fail.
#[derive(Clone, Copy, Debug)]
pub struct EntryFault {
    /// What of the control block is spoiled, as the backend names it.
    pub what: &'static str,
    /// Before this entry; the first is 1.
    pub at_entry: u64,
    /// Part of the reason with which the VM has to end.
    pub reason: &'static str,
}

/// Looks at a report.
pub type Check = fn(&RunReport) -> Result<()>;

/// A Linux guest.
#[derive(Clone, Copy, Debug)]
pub struct Linux {
    /// Debian package of the kernel.
    pub package: &'static str,
    /// Start the ELF file inside the kernel, by PVH.
    pub elf: bool,
    /// Memory in MiB.
    pub memory_mib: &'static str,
    /// Number of vCPUs.
    pub vcpus: &'static str,
}

const CLOUD_KERNEL: Linux =
    Linux { package: image::DEFAULT_KERNEL, elf: false, memory_mib: "512", vcpus: "1" };

const fn linux(name: &'static str, linux: Linux) -> Guest {
    Guest { name, kind: Kind::Linux(linux) }
}

const fn bare_metal(name: &'static str) -> Guest {
    Guest { name, kind: Kind::BareMetal { check: None } }
}

/// Debian's kernel for virtual machines.
pub const CLOUD: Guest = linux("cloud", CLOUD_KERNEL);
/// The same on two vCPUs.
pub const CLOUD_SMP2: Guest = linux("cloud-smp2", Linux { vcpus: "2", ..CLOUD_KERNEL });
/// The same with memory on both sides of the hole below 4 GiB.
pub const CLOUD_3G: Guest = linux("cloud-3g", Linux { memory_mib: "3072", ..CLOUD_KERNEL });
/// The ELF file inside it.
pub const CLOUD_ELF: Guest = linux("cloud-elf", Linux { elf: true, ..CLOUD_KERNEL });
/// Debian's kernel for all machines.
pub const FULL: Guest = linux("full", Linux { package: "linux-image-amd64", ..CLOUD_KERNEL });

/// Power management of the ACPI tables.
pub const ACPI: Guest = bare_metal("acpi");
/// The serial port in both directions.
pub const CONSOLE: Guest = bare_metal("console");
/// Lines of output at a pace.
pub const COUNTER: Guest = bare_metal("counter");
/// Exits for CPUID, which must be cheap.
pub const CPUID_LOOP: Guest =
    Guest { name: "cpuid_loop", kind: Kind::BareMetal { check: Some(cost::of_cpuid) } };
/// What must be refused.
pub const DENIED: Guest = bare_metal("denied");
/// Delivery of exceptions.
pub const EXCEPTIONS: Guest = bare_metal("exceptions");
/// The state after reset, and a ROM.
pub const FIRMWARE: Guest = bare_metal("firmware");
/// One line of output.
pub const HELLO: Guest = bare_metal("hello");
/// Device memory, by all instructions that can access it.
pub const MMIO: Guest = bare_metal("mmio");
/// Modes of the CPU, real mode among them.
pub const MODES: Guest = bare_metal("modes");
/// CPUID and model-specific registers.
pub const MSR_CPUID: Guest = bare_metal("msr_cpuid");
/// What a multiboot loader gives.
pub const MULTIBOOT1: Guest = bare_metal("multiboot1");
/// The same to a file with load addresses in its header.
pub const MULTIBOOT1_FLAT: Guest = bare_metal("multiboot1_flat");
/// What a Multiboot2 loader gives.
pub const MULTIBOOT2: Guest = bare_metal("multiboot2");
/// Non-maskable interrupts.
pub const NMI: Guest = bare_metal("nmi");
/// Address translation, against the page walker.
pub const PAGING: Guest = bare_metal("paging");
/// What a PVH loader gives.
pub const PVH: Guest = bare_metal("pvh");
/// A flat image.
pub const RAW: Guest = bare_metal("raw");
/// A flat image that is entered in real mode.
pub const RAW_REAL: Guest = bare_metal("raw_real");
/// Four vCPUs.
pub const SMP: Guest = bare_metal("smp");
/// String port I/O.
pub const STRIO: Guest = bare_metal("strio");
/// Entry faults on VMX.
pub const VMX_ENTRY_FAULTS: Guest =
    Guest { name: "entry-faults", kind: Kind::EntryFaults(entry_faults::VMX) };
/// Entry faults on SVM as Bochs 2.7 emulates it.
pub const BOCHS_SVM_ENTRY_FAULTS: Guest =
    Guest { name: "entry-faults", kind: Kind::EntryFaults(entry_faults::SVM_ON_BOCHS) };
/// Entry faults on SVM as QEMU 7.2 emulates it.
pub const TCG_ENTRY_FAULTS: Guest =
    Guest { name: "entry-faults", kind: Kind::EntryFaults(entry_faults::SVM_ON_TCG) };

/// Timers and clocks.
pub const TIMERS: Guest = bare_metal("timers");
