// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bare-metal guests, each on the bare machine, which says what is right, and under Alcazar.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wire::{
    Apic, EndKind, FORMAT_VERSION, GuestConsole, Manifest, Paging, ShadowSettings, Stage, Start,
    VmDescription,
};

use super::invoke::{Answer, Invocation};
use super::machine::TestMachine;
use super::row::{Log, Row, Tally};
use super::selftest::count;
use crate::cargo_build::bare_metal_binaries;
use crate::paths::Paths;
use crate::platform::accelerator::Accelerator;
use crate::run::bundle::Member;

/// Package of the guests.
pub const PACKAGE: &str = "bare-metal";

/// Memory of these guests, in MiB.
const MEMORY_MIB: u64 = 64;

/// How a guest is run, where it differs from the rule.
#[derive(Clone, Copy, Debug)]
pub struct Special {
    /// Name of the guest.
    name: &'static str,
    /// What the row is called, if a guest has several.
    variant: &'static str,
    options: &'static str,
    input: &'static str,
    vcpus: u32,
    /// How it is started.
    start: How,
    /// Whether bare QEMU starts it like this, too.
    oracle: bool,
    /// Further options of `run` under Alcazar.
    run: &'static [&'static str],
    /// Run under Alcazar with time that passes by instructions, so that a busy machine spoils no
    /// measurement. On the bare machine QEMU's own RTC is too fast then.
    pub icount: bool,
}

/// How a guest is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// As a kernel, whose format is detected.
    Kernel,
    /// As a kernel, with these options and the modules that the guest module `loader` expects.
    WithModules(&'static [&'static str]),
    /// As firmware, which has no command line.
    Firmware,
}

const RULE: Special = Special {
    name: "",
    variant: "",
    options: "",
    input: "",
    vcpus: 1,
    start: How::Kernel,
    oracle: true,
    run: &[],
    icount: false,
};

/// A guest that looks at what its loader gave it. Bare QEMU starts no Multiboot2 kernels, no
/// 64-bit ELF files by multiboot and no flat images, and by PVH it gives one module only.
const LOADER: Special =
    Special { options: "loader-test", start: How::WithModules(&[]), oracle: false, ..RULE };

const SHADOW: &[&str] = &["--paging", "shadow"];

/// Emulators that depart from the manuals in ways that no VMM on them can mend, so that a guest
/// has to be told of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departures {
    /// None that a guest would see.
    None,
    /// QEMU's TCG.
    Tcg,
    /// QEMU's TCG with shadow paging.
    TcgShadow,
    /// SVM as Bochs 2.7 emulates it.
    BochsSvm,
}

impl Departures {
    /// Word of the guest's command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Tcg => "tcg",
            Self::TcgShadow => "tcg tcg-shadow",
            Self::BochsSvm => "bochs-svm",
        }
    }
}

const SPECIALS: &[Special] = &[
    Special { name: "acpi", ..RULE },
    Special { name: "acpi", variant: "-power-off", options: "poweroff", ..RULE },
    Special { name: "acpi", variant: "-reset", options: "reset", ..RULE },
    // Polling, interrupts, polling again, end.
    Special { name: "console", input: "abicdpeq", ..RULE },
    Special { name: "counter", options: "lines=5", ..RULE },
    Special { name: "firmware", start: How::Firmware, ..RULE },
    Special {
        name: "firmware",
        variant: "-shadow",
        start: How::Firmware,
        oracle: false,
        run: SHADOW,
        ..RULE
    },
    Special { name: "multiboot1", ..LOADER },
    Special { name: "multiboot1_flat", oracle: true, ..LOADER },
    Special { name: "multiboot2", ..LOADER },
    Special { name: "pvh", ..LOADER },
    Special {
        name: "raw",
        start: How::WithModules(&["--load-address", "0x200000", "--entry-offset", "0x20"]),
        ..LOADER
    },
    Special {
        name: "raw_real",
        start: How::WithModules(&["--load-address", "0x10000", "--real-mode"]),
        ..LOADER
    },
    Special { name: "smp", vcpus: 4, ..RULE },
    Special { name: "timers", icount: true, ..RULE },
];

/// How the guest `name` is run; the first way, if it has several.
pub fn rule(name: &str) -> &'static Special {
    SPECIALS.iter().find(|special| special.name == name).unwrap_or(&RULE)
}

/// The guest that misbehaves; see [`hostile`].
const HOSTILE: &str = "hostile";

/// Guests that are no tests by themselves: that one, and those of `torture`.
const NO_TESTS: [&str; 3] = [HOSTILE, "neighbour", "torture"];

/// What it can be told to do, and how that has to end if it must end in one way.
const ACTS: &[(&str, Option<EndKind>)] = &[
    ("triple", Some(EndKind::TripleFault)),
    ("spin", Some(EndKind::Stopped)),
    ("hlt", Some(EndKind::Halted)),
    ("svm", Some(EndKind::ExitPort)),
    ("ports", None),
    ("msrs", None),
    ("devices", None),
    ("pci", None),
    ("jump", None),
    ("pagetables", None),
    ("interrupts", None),
    ("strings", None),
    ("registers", None),
    ("caches", None),
];

/// A run of the co-kernel with a manifest of its own.
type WholeRun = (&'static str, fn(&Paths, &mut Log) -> Result<()>);

const WHOLE_RUNS: &[WholeRun] = &[
    ("hostile-guests", hostile),
    ("hundred-rounds", rounds),
    ("nothing-left-in-registers", residue),
    ("two-vms-at-once", two_vms),
    ("first-cpu-of-tcg", first_cpu),
];

/// All rows of this kind.
///
/// # Errors
/// When the guests' sources cannot be listed.
pub fn rows(paths: &Paths, quick: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in names(paths)?.into_iter().filter(|name| !NO_TESTS.contains(&&**name)) {
        let mut specials: Vec<&'static Special> =
            SPECIALS.iter().filter(|special| special.name == name).collect();
        if specials.is_empty() {
            specials.push(&RULE);
        }
        for (special, bare) in specials.into_iter().flat_map(|one| [(one, true), (one, false)]) {
            if bare && (quick || !special.oracle) {
                continue;
            }
            let place = if bare { "bare-metal-oracle" } else { "bare-metal" };
            let row = format!("{place}/{name}{}", special.variant);
            let (paths, name) = (paths.clone(), name.clone());
            // Many guests measure time, which passes as on the machine outside.
            let run = move |log: &mut Log| run_guest(&paths, special, &name, bare, log);
            rows.push(Row::new(row, run).alone());
        }
    }
    let found = paths.clone();
    rows.push(Row::new("bare-metal/exit-values", move |log| exit_values(&found, log)));
    for &(name, run) in WHOLE_RUNS {
        let paths = paths.clone();
        rows.push(Row::new(format!("vm/{name}"), move |log| {
            run(&paths, log)?;
            Ok(Tally::ONE)
        }));
    }
    Ok(rows)
}

/// Names of the guests, which are those of their source files, in order.
fn names(paths: &Paths) -> Result<Vec<String>> {
    let folder = paths.root.join("guest-images").join(PACKAGE).join("src/bin");
    let files = fs::read_dir(&folder)
        .with_context(|| format!("cannot list the guests in {}", folder.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Where the guest `name` is, after building it.
///
/// # Errors
/// When it cannot be built, or there is none.
pub fn path(paths: &Paths, name: &str) -> Result<PathBuf> {
    let built = bare_metal_binaries(paths, PACKAGE)?;
    let found = built.into_iter().find(|(built, _)| built == name);
    Ok(found.with_context(|| format!("there is no guest '{name}'"))?.1)
}

/// Runs one guest and counts its tests.
fn run_guest(
    paths: &Paths,
    special: &Special,
    name: &str,
    bare: bool,
    log: &mut Log,
) -> Result<Tally> {
    let mut options = vec!["--accel", "tcg"];
    options.extend((special.icount && !bare).then_some("--icount"));
    if bare {
        options.push("--bare");
    } else {
        options.extend(special.run);
    }
    let limit = Duration::from_secs(60);
    tally(&invoke(special, &path(paths, name)?, Departures::Tcg, &options, limit, log)?)
}

/// Starts `run` for a guest, with `options` that say on which machine; `limit` is for the guest.
///
/// # Errors
/// When it cannot be started or does not end.
pub fn invoke(
    special: &Special,
    kernel: &Path,
    departures: Departures,
    options: &[&str],
    limit: Duration,
    log: &mut Log,
) -> Result<Answer> {
    let (memory, vcpus) = (MEMORY_MIB.to_string(), special.vcpus.to_string());
    let (kernel, timeout) = (kernel.to_string_lossy(), limit.as_secs().to_string());
    let words = format!("{} {}", departures.word(), special.options);
    let folder = tempfile::tempdir()?;
    let modules = write_modules(folder.path())?;
    let mut line = vec!["run", "--timeout", &timeout, "--mem", &memory, "--smp", &vcpus];
    match special.start {
        How::Firmware => line.extend(["--bios", &kernel]),
        How::Kernel => line.extend(["--kernel", &kernel, "--append", words.trim()]),
        How::WithModules(options) => {
            line.extend(["--kernel", &kernel, "--append", words.trim()]);
            line.extend(options);
            line.extend(modules.iter().flat_map(|module| ["--initrd", module]));
        }
    }
    line.extend(options);
    let limit = limit + Duration::from_secs(60);
    Invocation::xtask(line)?.stdin(special.input).limit(limit).run(log)
}

/// Writes the modules that the guest module `loader` expects, and gives their paths.
fn write_modules(folder: &Path) -> Result<[String; 2]> {
    let write = |name: &str, number: u8, bytes: usize| -> Result<String> {
        let content: Vec<u8> =
            (0..bytes).map(|at| (at as u8).wrapping_mul(7).wrapping_add(number)).collect();
        let path = folder.join(name);
        fs::write(&path, content)?;
        Ok(path.to_string_lossy().into_owned())
    };
    Ok([write("first.module", 1, 5)?, write("second.module", 2, 3 * 0x1000 + 7)?])
}

/// The tests of a guest that has ended; one, if it counts none.
///
/// # Errors
/// When it failed otherwise than by a test.
pub fn tally(answer: &Answer) -> Result<Tally> {
    match count(&answer.stdout) {
        // Its exit value is the number of failures.
        Ok(tally) if answer.status == i32::try_from(tally.failed)? => Ok(tally),
        _ => answer.expect_status(0).map(|()| Tally::ONE),
    }
}

/// What a guest writes to its exit port is the status of `run`, as far as a status can say it.
fn exit_values(paths: &Paths, log: &mut Log) -> Result<Tally> {
    let kernel = path(paths, HOSTILE)?;
    let kernel = kernel.to_string_lossy();
    let mut passed = 0;
    for (value, status) in [("0", 0), ("1", 1), ("42", 42), ("255", 255), ("256", 255)] {
        let words = format!("exit={value}");
        let line =
            ["run", "--accel", "tcg", "--mem", "64", "--kernel", &kernel, "--append", &words];
        let answer = Invocation::xtask(line)?.run(log)?;
        answer.expect_status(status)?;
        passed += 1;
    }
    Ok(Tally { passed, failed: 0 })
}

/// A VM for a guest, without access to the serial port.
pub fn vm(name: &str, guest: &str, command_line: String) -> VmDescription {
    VmDescription {
        name: name.into(),
        memory_mib: MEMORY_MIB,
        vcpus: 1,
        paging: None,
        shadow: ShadowSettings::default(),
        apic: Apic::Hardware,
        kernel: guest.into(),
        start: Start::Detect,
        modules: Vec::new(),
        command_line,
        console: GuestConsole::Log,
        exit_port: Some(wire::machine_exit::PORT),
        time_limit_ms: Some(5000),
        entry_fault: None,
        host_fault: None,
    }
}

/// Finds guests by name, as members of a bundle.
fn members(paths: &Paths, names: &[&str]) -> Result<Vec<Member>> {
    let built = bare_metal_binaries(paths, PACKAGE)?;
    names
        .iter()
        .map(|&name| {
            let found = built.iter().find(|(built, _)| built == name);
            let (name, path) = found.with_context(|| format!("there is no guest '{name}'"))?;
            Ok(Member { name: name.clone(), path: path.clone() })
        })
        .collect()
}

/// Every misdeed in a VM of its own, one after the other; then a well-behaved guest, in the same
/// run of the co-kernel.
fn hostile(paths: &Paths, log: &mut Log) -> Result<()> {
    let acts =
        ACTS.iter().map(|(act, _)| vm(act, HOSTILE, format!("{} {act}", Departures::Tcg.word())));
    let last = vm("after", "hello", String::new());
    let stages = acts.chain([last]).map(|vm| Stage { vms: vec![vm], repeat: 1 }).collect();
    let manifest = Manifest { version: FORMAT_VERSION, stages };
    let machine =
        TestMachine::with_bundle(paths, &manifest, &members(paths, &[HOSTILE, "hello"])?)?;
    let report = machine.run(Duration::from_secs(180), log)?.report()?;
    for (act, kind) in ACTS {
        let vm = report.vms.iter().find(|vm| vm.name == *act);
        let end = &vm.with_context(|| format!("no VM '{act}' in the report"))?.end;
        ensure!(end.kind != EndKind::Error, "{act}: {}", end.detail);
        ensure!(kind.is_none_or(|kind| kind == end.kind), "{act} ended by {:?}", end.kind);
        // TCG accepts what it then refuses to enter with; the VMM names it.
        ensure!(!end.detail.contains("does not know"), "{act}: {}", end.detail);
    }
    let after = report.vms.iter().find(|vm| vm.name == "after");
    let end = &after.context("no VM was run after the hostile ones")?.end;
    ensure!(end.kind == EndKind::ExitPort && end.exit_code == Some(0), "after: {}", end.detail);
    ensure!(report.before == report.after, "memory was left behind");
    Ok(())
}

/// Creating and destroying VMs leaves nothing behind.
fn rounds(paths: &Paths, log: &mut Log) -> Result<()> {
    const ROUNDS: u32 = 100;
    let stage = Stage { vms: vec![vm("hello", "hello", String::new())], repeat: ROUNDS };
    let manifest = Manifest { version: FORMAT_VERSION, stages: vec![stage] };
    let machine = TestMachine::with_bundle(paths, &manifest, &members(paths, &["hello"])?)?;
    let report = machine.run(Duration::from_secs(180), log)?.report()?;
    let [vm] = &report.vms[..] else { anyhow::bail!("{} VMs in the report", report.vms.len()) };
    ensure!(vm.rounds == ROUNDS, "{} rounds, expected {ROUNDS}", vm.rounds);
    ensure!(vm.end.exit_code == Some(0), "it ended: {}", vm.end.detail);
    ensure!(
        report.before == report.after,
        "memory was left behind: {:?} before, {:?} after",
        report.before,
        report.after
    );
    Ok(())
}

/// A VM finds nothing in the registers of what the one before it, on the same CPU, has left there.
fn residue(paths: &Paths, log: &mut Log) -> Result<()> {
    const ROUNDS: u32 = 3;
    const GUEST: &str = "residue";
    let nested = vm("nested", GUEST, String::new());
    let shadow =
        VmDescription { paging: Some(Paging::Shadow), ..vm("shadow", GUEST, String::new()) };
    let stages = [nested, shadow].map(|vm| Stage { vms: vec![vm], repeat: ROUNDS }).to_vec();
    let manifest = Manifest { version: FORMAT_VERSION, stages };
    let machine = TestMachine::with_bundle(paths, &manifest, &members(paths, &[GUEST])?)?;
    let report = machine.run(Duration::from_secs(60), log)?.report()?;
    ensure!(report.vms.len() == 2, "{} VMs in the report", report.vms.len());
    for vm in &report.vms {
        ensure!(vm.rounds == ROUNDS, "{}: {} rounds, expected {ROUNDS}", vm.name, vm.rounds);
        ensure!(vm.end.exit_code == Some(0), "{}: {}", vm.name, vm.end.detail);
    }
    Ok(())
}

/// A VM that would need the first of several CPUs of TCG is refused, and says what to do; the
/// next one, which does not need it, runs.
fn first_cpu(paths: &Paths, log: &mut Log) -> Result<()> {
    let two = VmDescription { vcpus: 2, ..vm("two", "hello", String::new()) };
    let vms = [two, vm("one", "hello", String::new())];
    let stages = vms.map(|vm| Stage { vms: vec![vm], repeat: 1 }).to_vec();
    let manifest = Manifest { version: FORMAT_VERSION, stages };
    let machine = TestMachine::with_bundle(paths, &manifest, &members(paths, &["hello"])?)?;
    let report = machine.with(2, "max", 512).run(Duration::from_secs(60), log)?.report()?;
    let [two, one] = &report.vms[..] else { anyhow::bail!("{} VMs ran", report.vms.len()) };
    ensure!(two.end.kind == EndKind::Error, "it ended by {:?}", two.end.kind);
    ensure!(two.end.detail.contains("one CPU more"), "unclear: {}", two.end.detail);
    ensure!(one.end.exit_code == Some(0), "the next VM: {}", one.end.detail);
    ensure!(report.before == report.after, "memory was left behind");
    Ok(())
}

/// Two VMs of one stage run at the same time, and the log keeps them apart.
fn two_vms(paths: &Paths, log: &mut Log) -> Result<()> {
    let vms = ["alpha", "beta"]
        .map(|name| vm(name, "counter", format!("lines=20 name={name}-counts")))
        .to_vec();
    let manifest = Manifest { version: FORMAT_VERSION, stages: vec![Stage { vms, repeat: 1 }] };
    let machine = TestMachine::with_bundle(paths, &manifest, &members(paths, &["counter"])?)?;
    let answer = machine
        .with(Accelerator::Tcg.cpus_for(2), "max", 512)
        .run(Duration::from_secs(120), log)?;
    let report = answer.report()?;
    ensure!(report.vms.len() == 2, "{} VMs in the report", report.vms.len());
    for vm in &report.vms {
        ensure!(vm.end.exit_code == Some(0), "{}: {}", vm.name, vm.end.detail);
    }
    let lines_of = |name: &str| -> Vec<usize> {
        let lines = answer.log.lines().enumerate();
        lines.filter(|(_, line)| line.contains(name)).map(|(number, _)| number).collect()
    };
    let (alpha, beta) = (lines_of("alpha-counts"), lines_of("beta-counts"));
    ensure!(alpha.len() == 20 && beta.len() == 20, "{} and {} lines", alpha.len(), beta.len());
    ensure!(alpha.first() < beta.last() && beta.first() < alpha.last(), "not at the same time");
    Ok(())
}
