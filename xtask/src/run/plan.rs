// SPDX-License-Identifier: MIT OR Apache-2.0
//! From options to a machine that can be started: everything is checked, fetched and built here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use wire::{GuestConsole, Module, RawMode, Start, VmDescription};

use super::COMMAND_LINE;
use super::bundle::{self, Member};
use super::folder::RunFolder;
use super::job::Job;
use super::options::{GuestOptions, MachineOptions, RunOptions};
use crate::architecture::Architecture;
use crate::console;
use crate::kernel_file::{self, KernelFile, RawPlace};
use crate::memory::{self, HostMemory};
use crate::paths::Paths;
use crate::platform::accelerator::{self, Accelerator, Choice};
use crate::platform::bochs;
use crate::platform::bochs::models::{self, Model};
use crate::platform::{Boot, Engine, MachineConfig, Platform, qemu};
use crate::{cargo_build, image, iso, setup};

/// Name of the one VM of a run.
const VM_NAME: &str = "guest";

/// Where guests that are not Linux end their VM; the same device as on the machine itself.
const EXIT_PORT: u16 = wire::machine_exit::PORT;

/// A run that is ready to start.
#[derive(Debug)]
pub struct Plan {
    /// The machine.
    pub machine: MachineConfig,
    /// What the guest's user space was told to do; `None` for a guest that is not ours.
    pub job: Option<Job>,
    /// Secret of the markers, with `job`.
    pub nonce: Option<String>,
    /// Why the engine was chosen, or what is special about it.
    engine_note: String,
}

/// A guest's files, found to be usable.
#[derive(Debug)]
pub struct Guest {
    kernel: PathBuf,
    format: KernelFile,
    start: Start,
    initrds: Vec<PathBuf>,
    job: Option<Job>,
    nonce: Option<String>,
    command_line: String,
    memory: u64,
}

impl Plan {
    /// Checks, fetches, builds and writes everything.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub fn make(paths: &Paths, options: &RunOptions, folder: &RunFolder) -> Result<Self> {
        let job = match &options.exec {
            Some(command) => Job::Command(command.clone()),
            None => Job::for_standard_input(),
        };
        check_files(&options.guest)?;
        match options.machine.platform {
            Platform::Qemu => {
                setup::ensure_tools(&[setup::QEMU])?;
                qemu::check_version()?;
            }
            Platform::Bochs => setup::ensure_bochs()?,
        }
        let platform = options.machine.platform;
        let model = platform.bochs_model(options.machine.cpu.as_deref())?;
        let guest = Guest::find(paths, &options.guest, model, job, folder)?;
        match platform {
            Platform::Bochs => Self::on_bochs(paths, guest, options, folder),
            Platform::Qemu if options.machine.bare => Self::bare(guest, options, folder),
            Platform::Qemu => Self::under_alcazar(paths, guest, options, folder),
        }
    }

    fn bare(guest: Guest, options: &RunOptions, folder: &RunFolder) -> Result<Self> {
        memory::check_host(guest.memory, HostMemory::read()?)?;
        let (accelerator, reason) = match options.machine.accel {
            Choice::Kvm => (Accelerator::Kvm, "as asked for".to_owned()),
            Choice::Auto | Choice::Tcg => (Accelerator::Tcg, "without Alcazar".to_owned()),
        };
        let boot = guest.boot_bare(folder)?;
        let machine = MachineConfig {
            memory_mib: guest.memory / memory::MIB,
            log: None,
            ..machine(options, Engine::Qemu(accelerator), boot)
        };
        Ok(Self { machine, job: guest.job, nonce: guest.nonce, engine_note: reason })
    }

    fn under_alcazar(
        paths: &Paths,
        guest: Guest,
        options: &RunOptions,
        folder: &RunFolder,
    ) -> Result<Self> {
        let image = cargo_build::cokernel(paths)?;
        let bundle_path = folder.file("bundle.cpio");
        let size = guest.write_bundle(&bundle_path, &options.guest, options.timeout)?;
        let memory_mib = memory::machine_mib(guest.memory, size, HostMemory::read()?)?;
        let (accelerator, reason) = choose_accelerator(&options.machine, &image, folder)?;
        let boot = Boot::Kernel {
            kernel: image,
            initrd: Some(bundle_path),
            command_line: options.machine.cokernel_append.clone(),
        };
        let log = options.log.clone().unwrap_or_else(|| folder.file("alcazar.log"));
        let machine = MachineConfig {
            cpus: accelerator.cpus_for(options.guest.smp),
            memory_mib,
            log: Some(log),
            ..machine(options, Engine::Qemu(accelerator), boot)
        };
        Ok(Self { machine, job: guest.job, nonce: guest.nonce, engine_note: reason })
    }

    fn on_bochs(
        paths: &Paths,
        guest: Guest,
        options: &RunOptions,
        folder: &RunFolder,
    ) -> Result<Self> {
        let bundle = folder.file("bundle.cpio");
        // No time limit inside: the machine's time is not the user's.
        let size = guest.write_bundle(&bundle, &options.guest, None)?;
        let memory_mib = memory::bochs_mib(guest.memory, size, HostMemory::read()?)?;
        let image = folder.file("machine.iso");
        let cokernel = cargo_build::cokernel(paths)?;
        iso::make(&image, &cokernel, &bundle, &options.machine.cokernel_append)?;
        let log = options.log.clone().unwrap_or_else(|| folder.file("alcazar.log"));
        let common = machine(options, Engine::Bochs, Boot::Iso(std::path::absolute(image)?));
        let log = std::path::absolute(log)?;
        let machine = MachineConfig { memory_mib, log: Some(log), ..common };
        let model = models::find(&machine.cpu)?;
        let mut note = model.offers.to_owned();
        if guest.format.is_linux() {
            note = format!("{note}; so the kernel gets: {}", bochs::kernel_options(model));
        }
        Ok(Self { machine, job: guest.job, nonce: guest.nonce, engine_note: note })
    }

    /// Says on standard error what is about to be run.
    pub fn announce(&self) {
        eprintln!(
            "{}: {} ({}), CPU model {}, {} CPU(s), {} MiB",
            if self.machine.log.is_some() { "alcazar" } else { "bare machine" },
            match self.machine.engine {
                Engine::Qemu(Accelerator::Kvm) => "QEMU with nested KVM",
                Engine::Qemu(Accelerator::Tcg) => "QEMU with TCG",
                Engine::Bochs => "Bochs",
            },
            self.engine_note,
            self.machine.cpu,
            self.machine.cpus,
            self.machine.memory_mib,
        );
    }
}

/// What is common to all machines.
fn machine(options: &RunOptions, engine: Engine, boot: Boot) -> MachineConfig {
    let cpu = options.machine.cpu.clone().unwrap_or_else(|| default_cpu(engine).to_owned());
    MachineConfig {
        engine,
        cpu,
        cpus: options.guest.smp,
        memory_mib: 0,
        deterministic: options.machine.icount,
        boot,
        log: None,
    }
}

const fn default_cpu(engine: Engine) -> &'static str {
    match engine {
        Engine::Qemu(Accelerator::Kvm) => "host",
        Engine::Qemu(Accelerator::Tcg) => qemu::TCG_CPU,
        Engine::Bochs => models::DEFAULT,
    }
}

/// Looks at the files the user named, before anything is fetched or built for them.
///
/// # Errors
/// One line that names the file at fault.
pub fn check_files(options: &GuestOptions) -> Result<()> {
    if let Some(kernel) = options.bios.as_ref().or(options.kernel.as_ref()) {
        inspect(kernel, options)?;
    }
    for initrd in &options.initrd {
        let name = initrd.display();
        let metadata = std::fs::metadata(initrd)
            .with_context(|| format!("cannot read the initial RAM disk {name}"))?;
        ensure!(metadata.is_file(), "the initial RAM disk {name} is not a file");
        ensure!(metadata.len() > 0, "the initial RAM disk {name} is empty");
    }
    Ok(())
}

/// Looks at what is started, which the options may call a flat image or firmware.
fn inspect(kernel: &Path, options: &GuestOptions) -> Result<KernelFile> {
    match options.raw_place() {
        Some(place) => kernel_file::inspect_raw(kernel, &place),
        None if options.bios.is_some() => kernel_file::inspect_firmware(kernel),
        None => kernel_file::inspect(kernel),
    }
}

/// How the VMM is to start it.
fn start(options: &GuestOptions) -> Start {
    match options.raw_place() {
        Some(RawPlace { load_address, entry_offset, real_mode }) => {
            let mode = if real_mode { RawMode::Real } else { RawMode::Protected };
            Start::Raw { load_address, entry_offset, mode }
        }
        None if options.bios.is_some() => Start::Firmware,
        None => Start::Detect,
    }
}

impl Guest {
    /// Finds or makes the guest's files and checks that they fit. A Linux kernel gets what it
    /// needs on the model of Bochs, if it runs there.
    ///
    /// # Errors
    /// When they do not, or cannot be had.
    pub fn find(
        paths: &Paths,
        options: &GuestOptions,
        model: Option<&Model>,
        job: Job,
        folder: &RunFolder,
    ) -> Result<Self> {
        let kernel = match options.bios.as_ref().or(options.kernel.as_ref()) {
            Some(kernel) => kernel.clone(),
            None => {
                setup::ensure_tools(&setup::PACKAGE_TOOLS)?;
                image::kernel(paths, image::DEFAULT_KERNEL)?
            }
        };
        let format = inspect(&kernel, options)?;
        let mut guest = Self {
            kernel,
            format,
            start: start(options),
            initrds: options.initrd.clone(),
            job: None,
            nonce: None,
            command_line: command_line(format, model, options.append.as_deref())?,
            memory: 0,
        };
        if format.is_linux() && options.initrd.is_empty() {
            guest.take_job(paths, job, folder, options.self_test)?;
        } else if matches!(job, Job::Command(_)) {
            ensure!(
                format.is_linux(),
                "--exec needs a Linux guest, but {} is none",
                guest.kernel.display()
            );
        }
        // By PVH Linux takes one initial RAM disk only.
        if matches!(format, KernelFile::Pvh { linux: true, .. }) && guest.initrds.len() > 1 {
            let joined = folder.file("initrd.cpio");
            crate::cpio::concatenate(&guest.initrds, &joined)?;
            guest.initrds = vec![joined];
        }
        guest.memory = memory::check_guest(options.mem, format, guest.initrd_size()?)?;
        Ok(guest)
    }

    /// What the bare machine boots.
    fn boot_bare(&self, folder: &RunFolder) -> Result<Boot> {
        let (kernel, command_line) = (self.kernel.clone(), self.command_line.clone());
        Ok(match self.format {
            KernelFile::Linux(_) | KernelFile::Pvh { .. } => {
                let initrd = if self.initrds.is_empty() {
                    None
                } else {
                    let joined = folder.file("bare-initrd.cpio");
                    crate::cpio::concatenate(&self.initrds, &joined)?;
                    Some(joined)
                };
                Boot::Kernel { kernel, initrd, command_line }
            }
            KernelFile::Multiboot { second: false, .. } => {
                Boot::Multiboot { kernel, modules: self.initrds.clone(), command_line }
            }
            KernelFile::Firmware => Boot::Firmware(kernel),
            KernelFile::Multiboot { second: true, .. } => {
                bail!("--bare: QEMU by itself starts no Multiboot2 kernels")
            }
            KernelFile::Raw { .. } => bail!("--bare: QEMU by itself starts no flat images"),
        })
    }

    /// Uses our own user space.
    fn take_job(
        &mut self,
        paths: &Paths,
        job: Job,
        folder: &RunFolder,
        self_test: bool,
    ) -> Result<()> {
        let nonce = console::new_nonce()?;
        let path = folder.file("job.cpio");
        job.write(&nonce, &path)?;
        setup::ensure_tools(&setup::PACKAGE_TOOLS)?;
        let architecture = self.format.architecture();
        ensure!(
            !self_test || architecture == Architecture::Amd64,
            "--self-test: the program is a 64-bit one, and {} a 32-bit kernel",
            self.kernel.display()
        );
        self.initrds = vec![image::initramfs(paths, architecture)?];
        if self_test {
            self.initrds.push(image::self_test(paths)?);
        }
        self.initrds.push(path);
        self.job = Some(job);
        self.nonce = Some(nonce);
        Ok(())
    }

    fn initrd_size(&self) -> Result<u64> {
        let mut total = 0;
        for initrd in &self.initrds {
            let metadata = std::fs::metadata(initrd)
                .with_context(|| format!("cannot read {}", initrd.display()))?;
            total += metadata.len();
        }
        Ok(total)
    }

    /// Writes the bundle that has the co-kernel run this guest, and gives its size.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn write_bundle(
        &self,
        path: &Path,
        options: &GuestOptions,
        timeout: Option<u64>,
    ) -> Result<u64> {
        let mut members = vec![Member { name: "kernel".into(), path: self.kernel.clone() }];
        members.extend(self.initrds.iter().enumerate().map(|(index, initrd)| Member {
            name: format!("initrd{index}"),
            path: initrd.clone(),
        }));
        let module = |(member, path): (&Member, &PathBuf)| Module {
            image: member.name.clone(),
            command_line: path.to_string_lossy().into_owned(),
        };
        let modules = members.iter().skip(1).zip(&self.initrds).map(module).collect();
        let vm = VmDescription {
            name: VM_NAME.into(),
            memory_mib: options.mem,
            vcpus: options.smp,
            paging: options.paging.map(Into::into),
            shadow: options.shadow_settings(),
            apic: options.apic(),
            kernel: "kernel".into(),
            start: self.start,
            modules,
            command_line: self.command_line.clone(),
            console: GuestConsole::Serial,
            exit_port: (!self.format.is_linux()).then_some(EXIT_PORT),
            time_limit_ms: timeout.map(|seconds| seconds.saturating_mul(1000)),
            entry_fault: None,
            host_fault: None,
        };
        bundle::write(path, &bundle::single(vm), &members)
    }
}

/// The guest's kernel command line.
fn command_line(format: KernelFile, model: Option<&Model>, append: Option<&str>) -> Result<String> {
    let base = match model {
        _ if !format.is_linux() => String::new(),
        None => COMMAND_LINE.to_owned(),
        Some(model) => format!("{COMMAND_LINE} {}", bochs::kernel_options(model)),
    };
    let limit = match format {
        KernelFile::Linux(image) => image.command_line_size,
        _ => u64::MAX,
    };
    let line = [&base, append.unwrap_or_default()].join(" ").trim().to_owned();
    ensure!(!line.contains('\0'), "--append: a command line cannot contain NUL characters");
    ensure!(
        line.len() as u64 <= limit,
        "--append: the kernel takes command lines of at most {limit} bytes, this is one of {}",
        line.len()
    );
    Ok(line)
}

/// Decides between nested KVM and TCG, and says why.
fn choose_accelerator(
    options: &MachineOptions,
    image: &Path,
    folder: &RunFolder,
) -> Result<(Accelerator, String)> {
    let works = || {
        accelerator::nested_kvm()?;
        super::start::cokernel_starts_with_kvm(image, options, folder)
    };
    match options.accel {
        Choice::Tcg => Ok((Accelerator::Tcg, "as asked for".into())),
        Choice::Auto if options.icount => Ok((Accelerator::Tcg, "--icount needs it".into())),
        Choice::Auto => Ok(match works() {
            Ok(()) => (Accelerator::Kvm, "nested virtualization works".into()),
            Err(why) => (Accelerator::Tcg, format!("no nested KVM: {why}")),
        }),
        Choice::Kvm => match works() {
            Ok(()) => Ok((Accelerator::Kvm, "as asked for".into())),
            Err(why) => bail!("--accel kvm: {why}; use --accel tcg"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_file::BzImage;

    #[test]
    fn what_is_appended_comes_last() {
        let linux = KernelFile::Linux(BzImage {
            architecture: Architecture::Amd64,
            preferred_address: 0,
            init_size: 0,
            command_line_size: 255,
        });
        let line = command_line(linux, None, Some("debug")).unwrap();
        assert_eq!(line, format!("{COMMAND_LINE} debug"));
        assert_eq!(command_line(linux, None, None).unwrap(), COMMAND_LINE);
        let model = models::find("phenom_8650_toliman").unwrap();
        let line = command_line(linux, Some(model), Some("debug")).unwrap();
        assert!(line.ends_with(" cryptomgr.notests clearcpuid=popcnt debug"), "{line}");
        assert!(command_line(linux, Some(model), Some(&"x".repeat(250))).is_err());
        let pvh = KernelFile::Pvh { load_end: 0, linux: false, architecture: Architecture::Amd64 };
        assert_eq!(command_line(pvh, Some(model), Some("a b")).unwrap(), "a b");
    }
}
