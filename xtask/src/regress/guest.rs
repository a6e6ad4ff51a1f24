// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guests of the matrix.

use anyhow::Result;
use wire::RunReport;

use super::{cost, entry_faults, shadow, spinning};
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
    /// Debian's kernel with `guest-images/self-test`, which tests its machine from inside.
    SelfTest(SelfTest),
    /// A guest that measures its clocks, which are compared with the host's.
    Drift(Observer),
    /// So many VMs, one after the other, that execute random instructions, beside one that must
    /// not notice.
    Torture(u64),
}

/// What the self-test of a Linux guest is to do.
#[derive(Clone, Copy, Debug)]
pub struct SelfTest {
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// The command's arguments; `SECONDS` stands for the time of a storm.
    pub tests: &'static str,
    /// What the guest does then, and how that has to end it.
    pub last_act: LastAct,
}

/// Who measures clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observer {
    /// The bare-metal guest `drift`, which reads the devices.
    BareMetal,
    /// Linux with each of its clock sources, at the rate that it believes them to have.
    Linux,
}

impl Observer {
    /// The clocks that it must find.
    pub const fn clocks(self) -> &'static [&'static str] {
        match self {
            Self::BareMetal => &["tsc", "kvmclock", "hpet", "acpi_pm", "lapic", "pit", "rtc"],
            Self::Linux => &["tsc", "kvm-clock", "hpet", "acpi_pm"],
        }
    }
}

/// How a guest ends itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastAct {
    /// It switches itself off.
    PowerOff,
    /// It starts itself anew.
    Reboot,
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
    /// What it has to do besides coming up.
    pub task: Option<&'static Task>,
}

/// What a Linux guest is told to do.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Options of `run`.
    pub options: &'static [&'static str],
    /// For its shell.
    pub command: &'static str,
    /// What that prints.
    pub output: &'static str,
    /// What the report has to show.
    pub check: Check,
}

const CLOUD_KERNEL: Linux =
    Linux { package: image::DEFAULT_KERNEL, elf: false, memory_mib: "512", vcpus: "1", task: None };

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
/// Debian's kernel for virtual machines, with 64 processes at once, each with one more that sleeps,
/// and so little room for shadow tables that they take it from each other.
pub const PROCESSES: Guest =
    linux("cloud-processes", Linux { task: Some(&PROCESSES_TASK), ..CLOUD_KERNEL });

const PROCESSES_TASK: Task = Task {
    options: &["--shadow-budget", "2"],
    command: "cd /tmp; for i in $(seq 64); do (a=$i; for k in 1 2 3; do a=$((a*3+k)); sleep 1; \
        done; echo $a >>sums) & done; wait; awk '{s+=$1} END {print NR, s}' sums",
    // Each makes 27 i + 18 of its number.
    output: "64 57312\n",
    check: shadow::evicts_from_two_mib,
};

/// The ELF file inside it.
pub const CLOUD_ELF: Guest = linux("cloud-elf", Linux { elf: true, ..CLOUD_KERNEL });
/// Debian's kernel for all machines.
pub const FULL: Guest = linux("full", Linux { package: "linux-image-amd64", ..CLOUD_KERNEL });

/// Debian's 32-bit kernel for all machines, with the tables of physical address extension.
pub const PAE32: Guest = linux("pae32", PAE32_KERNEL);
/// The same on two vCPUs.
pub const PAE32_SMP2: Guest = linux("pae32-smp2", Linux { vcpus: "2", ..PAE32_KERNEL });
/// Debian's 32-bit kernel for CPUs without physical address extension, on tables of two levels.
pub const PLAIN32: Guest = linux(
    "plain32",
    Linux { package: "linux-image-686:i386", task: Some(&uname("i686\n686\n")), ..CLOUD_KERNEL },
);

const PAE32_KERNEL: Linux =
    Linux { package: image::PAE_KERNEL, task: Some(&uname("i686\n686-pae\n")), ..CLOUD_KERNEL };

/// Tells a 32-bit machine and the kernel's flavour.
const fn uname(output: &'static str) -> Task {
    let command = "uname -m; uname -r | grep -o 686.*";
    Task { options: &[], command, output, check: |_| Ok(()) }
}

const fn self_test(name: &'static str, tests: SelfTest) -> Guest {
    Guest { name, kind: Kind::SelfTest(tests) }
}

/// What Linux sees of its machine: CPUs, memory, clocks, interrupts, processes, CPU hotplug.
pub const INSIDE: Guest = self_test(
    "inside",
    SelfTest {
        memory_mib: 512,
        vcpus: 4,
        tests: "cpus cpus=4 memory mib=512 clock interrupts shootdown fork hotplug log",
        last_act: LastAct::PowerOff,
    },
);
/// The same as far as it goes on a slow machine with two CPUs, and a reboot.
pub const INSIDE_SMALL: Guest = self_test(
    "inside-small",
    SelfTest {
        memory_mib: 128,
        vcpus: 2,
        tests: "cpus cpus=2 memory mib=128 clock seconds=1 interrupts shootdown seconds=1 \
                fork seconds=1 hotplug rounds=1 log",
        last_act: LastAct::Reboot,
    },
);
/// TLB shootdowns, interprocessor interrupts and wake-ups.
pub const STORM: Guest = self_test(
    "storm",
    SelfTest {
        memory_mib: 256,
        vcpus: 4,
        tests: "shootdown seconds=SECONDS log",
        last_act: LastAct::PowerOff,
    },
);

/// The rates of all clocks of the machine.
pub const DRIFT: Guest = Guest { name: "drift", kind: Kind::Drift(Observer::BareMetal) };
/// The rates of Linux' clock sources.
pub const DRIFT_LINUX: Guest = Guest { name: "drift-linux", kind: Kind::Drift(Observer::Linux) };

/// Random instructions, for a minute or two.
pub const TORTURE: Guest = Guest { name: "torture", kind: Kind::Torture(400) };
/// The same where instructions are slow.
pub const TORTURE_SLOWLY: Guest = Guest { name: "torture", kind: Kind::Torture(40) };

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
/// How interrupts are addressed, delivered, ordered, masked and ended.
pub const INTERRUPTS: Guest = bare_metal("interrupts");
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
/// Every instruction that can exit, in every mode.
pub const PRIVILEGE: Guest = bare_metal("privilege");
/// What a PVH loader gives.
pub const PVH: Guest = bare_metal("pvh");
/// A flat image.
pub const RAW: Guest = bare_metal("raw");
/// A flat image that is entered in real mode.
pub const RAW_REAL: Guest = bare_metal("raw_real");
/// Four vCPUs.
pub const SMP: Guest =
    Guest { name: "smp", kind: Kind::BareMetal { check: Some(spinning::is_noticed) } };
/// String port I/O.
pub const STRIO: Guest = bare_metal("strio");
/// Switches of tasks.
pub const TASKS: Guest = bare_metal("tasks");
/// Entry faults on VMX.
pub const VMX_ENTRY_FAULTS: Guest =
    Guest { name: "entry-faults", kind: Kind::EntryFaults(entry_faults::VMX) };
/// Entry faults on VMX without EPT.
pub const VMX_ENTRY_FAULTS_WITHOUT_EPT: Guest =
    Guest { name: "entry-faults", kind: Kind::EntryFaults(entry_faults::VMX_WITHOUT_EPT) };
/// Entry faults on SVM as Bochs 2.7 emulates it.
pub const BOCHS_SVM_ENTRY_FAULTS: Guest =
    Guest { name: "entry-faults", kind: Kind::EntryFaults(entry_faults::SVM_ON_BOCHS) };
/// Entry faults on SVM as QEMU 7.2 emulates it.
pub const TCG_ENTRY_FAULTS: Guest =
    Guest { name: "entry-faults", kind: Kind::EntryFaults(entry_faults::SVM_ON_TCG) };

/// Timers and clocks.
pub const TIMERS: Guest = bare_metal("timers");
