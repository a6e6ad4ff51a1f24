// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of `run`.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::kernel_file::RawPlace;
use crate::platform::Platform;
use crate::platform::accelerator::Choice;
use crate::platform::bochs::MOST_CPUS;

/// Most vCPUs of one VM: what the library allows.
pub const MOST_VCPUS: u32 = 64;

/// What makes up a guest.
#[derive(Clone, Debug, Args)]
pub struct GuestOptions {
    /// Kernel to boot: a Linux bzImage (vmlinuz), an ELF file with a PVH entry, a multiboot or
    /// Multiboot2 kernel; the format is detected [default: Debian's linux-image-cloud-amd64,
    /// fetched without installing it]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk or module; may be repeated: for Linux the files are joined in order, other
    /// kernels get a module each [default, for Linux: a busybox made by this tool]
    #[arg(long, value_name = "FILE")]
    pub initrd: Vec<PathBuf>,
    /// Add the program 'self-test' to the default user space; 'self-test help' in the guest
    /// tells what it can do
    #[arg(long, conflicts_with = "initrd")]
    pub self_test: bool,
    /// Added to the end of the kernel command line, which for a Linux kernel is:
    /// console=ttyS0 quiet panic=-1 no_timer_check nowatchdog
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// The kernel is a flat image without a format: load it at this guest-physical address and
    /// enter it there in 32-bit protected mode
    #[arg(long, value_name = "ADDRESS", requires = "kernel", value_parser = parse_number)]
    pub load_address: Option<u64>,
    /// Enter the flat image so many bytes from its start
    #[arg(
        long,
        value_name = "BYTES",
        requires = "load_address",
        default_value = "0",
        value_parser = parse_number
    )]
    pub entry_offset: u64,
    /// Enter the flat image in real mode
    #[arg(long, requires = "load_address")]
    pub real_mode: bool,
    /// Start at the reset vector of this firmware image, which is mapped below 4 GiB, in place of
    /// a kernel
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["kernel", "initrd", "append", "load_address"]
    )]
    pub bios: Option<PathBuf>,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub mem: u64,
    /// Number of virtual CPUs, each on a CPU of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub smp: u32,
    /// How guest-physical addresses are translated
    /// [default: nested if the CPU has it, else shadow]
    #[arg(long, value_enum)]
    pub paging: Option<Paging>,
    /// With shadow paging: most memory for shadow tables, in MiB
    /// [default: a sixty-fourth of the guest's memory, from 2 to 64]
    #[arg(long, value_name = "MIB")]
    pub shadow_budget: Option<u64>,
    /// With shadow paging: keep shadow tables when the guest loads CR3
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub shadow_cache: Switch,
    /// Whether the CPU may do a part of the local APICs' work, where it can
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub apicv: Switch,
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

impl Switch {
    /// Name in tables and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// Reads a number in decimal, or in hexadecimal after `0x`.
fn parse_number(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "give a number, such as 0x100000 or 1048576".into())
}

/// How guest-physical addresses are translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Paging {
    /// By the CPU's nested page tables.
    Nested,
    /// By shadow page tables the VMM keeps.
    Shadow,
}

/// What makes up the machine under the co-kernel.
#[derive(Clone, Debug, Args)]
pub struct MachineOptions {
    /// Machine to run the co-kernel on
    #[arg(long, value_enum, default_value_t = Platform::Qemu)]
    pub platform: Platform,
    /// How the machine's CPUs are made; 'auto' is nested KVM where it really works, else TCG
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub accel: Choice,
    /// CPU model of the machine, as the platform names it
    /// [default: max with TCG, host with KVM, ryzen with Bochs]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// Deterministic time: one nanosecond for each instruction executed (TCG with one CPU)
    #[arg(long)]
    pub icount: bool,
    /// Run the same guest on the same machine without Alcazar, for comparison
    #[arg(long)]
    pub bare: bool,
    /// Command line of the co-kernel
    #[arg(
        long,
        value_name = "STRING",
        hide = true,
        default_value = "",
        allow_hyphen_values = true
    )]
    pub cokernel_append: String,
}

/// Runs a guest under Alcazar: by default a Debian Linux with a shell on this terminal.
///
/// Keys reach the guest; Ctrl-A X quits, Ctrl-A Ctrl-A sends Ctrl-A. Piped standard input is run
/// by the guest's shell like a script, without prompt or echo; the guest powers off at its end.
///
/// Exit status: that of the guest's shell or of CMD; 124 when the time limit is reached; 125 when
/// Alcazar or this tool failed; 2 for a usage error; 128 + N after signal N.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Guest.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// Machine.
    #[command(flatten)]
    pub machine: MachineOptions,
    /// Run CMD in the guest's shell with /dev/null as standard input, print its output (and
    /// nothing else), power off and exit with its status
    #[arg(
        long,
        value_name = "CMD",
        conflicts_with_all = ["initrd", "bios", "load_address"],
        allow_hyphen_values = true
    )]
    pub exec: Option<String>,
    /// End the run after so many seconds, counted from the machine's start
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Write the co-kernel's log to FILE [default: a file below target/alcazar/runs]
    #[arg(long, value_name = "FILE", conflicts_with = "bare")]
    pub log: Option<PathBuf>,
    /// Write the run report to FILE as JSON
    #[arg(long, value_name = "FILE", conflicts_with = "bare")]
    pub report: Option<PathBuf>,
    /// Print the run report in short form on standard error
    #[arg(long, conflicts_with = "bare")]
    pub summary: bool,
    /// With --exec: print one JSON object with output, status and report in place of the output
    #[arg(long, requires = "exec")]
    pub json: bool,
}

impl RunOptions {
    /// Checks what the option parser cannot.
    ///
    /// # Errors
    /// One line that names the option at fault.
    pub fn check(&self) -> Result<()> {
        self.guest.check()?;
        self.machine.check()?;
        if self.machine.icount {
            ensure!(
                self.guest.smp == 1,
                "--icount needs --smp 1: instructions are counted on one CPU only"
            );
            ensure!(
                self.machine.accel != Choice::Kvm,
                "--icount needs TCG: use --accel tcg or leave --accel out"
            );
        }
        let cpus = self.guest.smp;
        ensure!(
            self.machine.platform != Platform::Bochs || cpus <= MOST_CPUS,
            "--smp {cpus}: on Bochs a guest has at most {MOST_CPUS} CPUs"
        );
        ensure!(self.timeout != Some(0), "--timeout 0 leaves no time: give at least 1");
        if self.exec.as_ref().is_some_and(|command| command.contains('\0')) {
            bail!("--exec: a command cannot contain NUL characters");
        }
        Ok(())
    }
}

impl MachineOptions {
    /// Checks what the option parser cannot.
    ///
    /// # Errors
    /// One line that names the option at fault.
    pub fn check(&self) -> Result<()> {
        if self.platform != Platform::Bochs {
            return Ok(());
        }
        ensure!(
            !self.bare,
            "--bare needs --platform qemu: Bochs boots guests only through GRUB and the co-kernel"
        );
        ensure!(!self.icount, "--icount needs --platform qemu: time on Bochs is always like this");
        ensure!(
            self.accel == Choice::Auto,
            "--accel is for --platform qemu: Bochs always interprets, leave --accel out"
        );
        self.platform.bochs_model(self.cpu.as_deref()).map(drop)
    }
}

impl GuestOptions {
    /// Checks what the option parser cannot.
    ///
    /// # Errors
    /// One line that names the option at fault.
    pub fn check(&self) -> Result<()> {
        ensure!(self.smp != 0, "--smp 0: a guest needs at least one virtual CPU");
        ensure!(
            self.smp <= MOST_VCPUS,
            "--smp {}: at most {MOST_VCPUS} virtual CPUs are supported",
            self.smp
        );
        ensure!(self.mem != 0, "--mem 0: a guest needs memory; the default is 512");
        ensure!(self.shadow_budget != Some(0), "--shadow-budget 0: give at least 1");
        let settings = self.shadow_budget.is_some() || self.shadow_cache == Switch::Off;
        ensure!(
            !settings || self.paging != Some(Paging::Nested),
            "--shadow-budget and --shadow-cache are for shadow paging: leave --paging nested out"
        );
        Ok(())
    }

    /// Where the kernel goes, if it is a flat image.
    pub fn raw_place(&self) -> Option<RawPlace> {
        let (entry_offset, real_mode) = (self.entry_offset, self.real_mode);
        self.load_address.map(|load_address| RawPlace { load_address, entry_offset, real_mode })
    }
}

impl Paging {
    /// Name in tables and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Shadow => "shadow",
        }
    }
}

impl GuestOptions {
    /// Who does the work of the local APICs.
    pub fn apic(&self) -> wire::Apic {
        match self.apicv {
            Switch::On => wire::Apic::Hardware,
            Switch::Off => wire::Apic::Emulated,
        }
    }

    /// The settings of shadow paging.
    pub fn shadow_settings(&self) -> wire::ShadowSettings {
        wire::ShadowSettings {
            budget_bytes: self.shadow_budget.map(|mib| mib.saturating_mul(1 << 20)),
            cache: self.shadow_cache == Switch::On,
        }
    }
}

impl From<Paging> for wire::Paging {
    fn from(paging: Paging) -> Self {
        match paging {
            Paging::Nested => Self::Nested,
            Paging::Shadow => Self::Shadow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: RunOptions,
    }

    fn check(arguments: &[&str]) -> Result<(), String> {
        let line = std::iter::once("run").chain(arguments.iter().copied());
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        line.options.check().map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_valid() {
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["--exec", "-x", "--json", "--icount", "--mem", "3072"]), Ok(()));
        assert_eq!(check(&["--append", "-x"]), Ok(()));
        let flat = ["--kernel", "a", "--load-address", "0x7c00", "--real-mode"];
        assert_eq!(check(&flat), Ok(()));
        assert_eq!(check(&["--bios", "a", "--mem", "2"]), Ok(()));
    }

    #[test]
    fn names_are_those_of_the_options() {
        for paging in Paging::value_variants() {
            let option = paging.to_possible_value().unwrap();
            assert_eq!(option.get_name(), paging.name());
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (arguments, complaint) in [
            (&["--smp", "0"][..], "--smp 0"),
            (&["--smp", "65"], "at most 64"),
            (&["--mem", "0"], "--mem 0"),
            (&["--mem", "-1"], "unexpected argument"),
            (&["--mem", "lots"], "invalid value 'lots'"),
            (&["--timeout", "0"], "--timeout 0"),
            (&["--paging", "flat"], "invalid value 'flat'"),
            (&["--shadow-budget", "0"], "--shadow-budget 0"),
            (&["--paging", "nested", "--shadow-cache", "off"], "leave --paging nested out"),
            (&["--platform", "bochs", "--bare"], "--bare needs --platform qemu"),
            (&["--platform", "bochs", "--icount"], "--icount needs --platform qemu"),
            (&["--platform", "bochs", "--accel", "tcg"], "leave --accel out"),
            (&["--platform", "bochs", "--cpu", "abacus"], "use one of"),
            (&["--platform", "bochs", "--smp", "9"], "at most 8 CPUs"),
            (&["--platform", "bochs", "--cpu", "pentium"], "no 64-bit hardware virtualization"),
            (&["--platform", "vax"], "invalid value 'vax'"),
            (&["--icount", "--smp", "2"], "--icount needs --smp 1"),
            (&["--icount", "--accel", "kvm"], "--icount needs TCG"),
            (&["--json"], "--exec"),
            (&["--bare", "--report", "r"], "cannot be used with"),
            (&["--exec", "a", "--initrd", "i"], "cannot be used with"),
            (&["--bios", "a", "--kernel", "b"], "cannot be used with"),
            (&["--bios", "a", "--append", "b"], "cannot be used with"),
            (&["--bios", "a", "--exec", "b"], "cannot be used with"),
            (&["--load-address", "0x1000"], "--kernel"),
            (&["--kernel", "a", "--real-mode"], "--load-address"),
            (&["--kernel", "a", "--load-address", "here"], "such as 0x100000"),
            (&["--kernel", "a", "--load-address", "0x1G"], "such as 0x100000"),
            (&["--surprise"], "unexpected argument"),
        ] {
            let error = check(arguments).unwrap_err();
            assert!(error.contains(complaint), "{arguments:?}: {error}");
        }
    }
}
