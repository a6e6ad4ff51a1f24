// SPDX-License-Identifier: MIT OR Apache-2.0
//! What bad input gets: one line that names the cause, a failing status, nothing left behind.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};

use super::invoke::Invocation;
use super::row::{Row, Tally};
use crate::image;
use crate::paths::Paths;

/// Status of this tool's own failures.
const FAILED: i32 = crate::run::outcome::FAILED as i32;
/// Status of usage errors, from the option parser.
const USAGE: i32 = 2;

/// Rows that need nothing but options: name, options, status, part of the error line.
const OPTIONS: &[(&str, &[&str], i32, &str)] = &[
    ("smp-0", &["--smp", "0"], FAILED, "--smp 0"),
    ("mem-0", &["--mem", "0"], FAILED, "--mem 0"),
    ("mem-below-need", &["--mem", "32"], FAILED, "is not enough"),
    ("mem-above-host", &["--bare", "--mem", "999999999"], FAILED, "MiB available"),
    ("timeout-0", &["--timeout", "0"], FAILED, "--timeout 0"),
    ("paging-unknown", &["--paging", "flat"], USAGE, "invalid value 'flat'"),
    ("platform-unknown", &["--platform", "vax"], USAGE, "invalid value 'vax'"),
    ("bochs-cpu-unknown", &["--platform", "bochs", "--cpu", "abacus"], FAILED, "tigerlake"),
    ("bochs-cpu-old", &["--platform", "bochs", "--cpu", "pentium"], FAILED, "virtualization"),
    ("bochs-bare", &["--platform", "bochs", "--bare"], FAILED, "--bare needs --platform qemu"),
    ("bochs-accel", &["--platform", "bochs", "--accel", "tcg"], FAILED, "leave --accel out"),
    ("bochs-mem", &["--platform", "bochs", "--mem", "2047"], FAILED, "at most 2048 MiB"),
    ("bochs-smp", &["--platform", "bochs", "--smp", "9"], FAILED, "at most 8 CPUs"),
    ("bochs-icount", &["--platform", "bochs", "--icount"], FAILED, "--icount needs"),
    ("option-unknown", &["--surprise"], USAGE, "unexpected argument"),
    ("icount-smp", &["--icount", "--smp", "2"], FAILED, "--smp 1"),
    ("cpu-unknown", &["--bare", "--cpu", "abacus"], FAILED, "abacus"),
    ("kernel-missing", &["--kernel", "/nonexistent"], FAILED, "cannot read the kernel"),
    ("kernel-folder", &["--kernel", "/"], FAILED, "the kernel /"),
    ("kernel-program", &["--kernel", "/bin/sh"], FAILED, "without a PVH entry"),
    ("kernel-text", &["--kernel", "/etc/passwd"], FAILED, "neither a Linux bzImage"),
    (
        "flat-image-entry",
        &["--kernel", "/etc/passwd", "--load-address", "0x10000", "--entry-offset", "0x100000"],
        FAILED,
        "--entry-offset 0x100000",
    ),
    (
        "flat-image-real-mode",
        &["--kernel", "/etc/passwd", "--load-address", "0x100000", "--real-mode"],
        FAILED,
        "give a --load-address below 1 MiB",
    ),
    (
        "flat-image-address",
        &["--kernel", "/etc/passwd", "--load-address", "0xfffffff0"],
        FAILED,
        "it would end above 4 GiB",
    ),
    (
        "flat-image-in-no-memory",
        &["--kernel", "/etc/passwd", "--load-address", "0xa0000"],
        FAILED,
        "choose another load address",
    ),
    ("firmware-missing", &["--bios", "/nonexistent"], FAILED, "cannot read the firmware"),
    ("firmware-size", &["--bios", "/etc/passwd"], FAILED, "multiples of 4096 bytes"),
    ("initrd-missing", &["--initrd", "/nonexistent"], FAILED, "initial RAM disk"),
    ("log-unwritable", &["--log", "/nonexistent/log"], FAILED, "--log: cannot write"),
    ("log-folder", &["--log", "/"], FAILED, "--log: cannot write"),
    ("report-unwritable", &["--report", "/nonexistent/r"], FAILED, "--report: cannot write"),
    ("report-folder", &["--report", "/"], FAILED, "--report: / is a folder"),
];

/// All rows of this kind.
pub fn rows(paths: &Paths) -> Vec<Row> {
    let mut rows: Vec<Row> = OPTIONS
        .iter()
        .map(|&(name, options, status, text)| {
            row(name, move |_| Ok(()), options.iter().map(ToString::to_string), status, text)
        })
        .collect();
    rows.extend([truncated_kernel(paths), self_test_on_32_bits(paths)]);
    rows.extend([nowhere_to_go(), unknown_demand()]);
    rows.extend([large_initrd(), log_in_use(), old_qemu(), no_qemu()]);
    rows
}

/// A row that runs `run` with `options`, in which `{}` stands for a folder that `prepare` fills.
fn row(
    name: &str,
    prepare: impl Fn(&Path) -> Result<()> + Send + 'static,
    options: impl IntoIterator<Item = String>,
    status: i32,
    text: &'static str,
) -> Row {
    let options: Vec<String> = options.into_iter().collect();
    Row::new(format!("bad-input/{name}"), move |log| {
        let folder = tempfile::tempdir()?;
        prepare(folder.path())?;
        let before = listing(folder.path())?;
        let place = folder.path().to_string_lossy();
        let options = options.iter().map(|option| option.replace("{}", &place));
        let answer = Invocation::xtask(["run".to_owned()].into_iter().chain(options))?.run(log)?;
        answer.expect_status(status)?;
        answer.expect_one_error(text)?;
        ensure!(answer.stdout.is_empty(), "there is output on standard output");
        ensure!(listing(folder.path())? == before, "files were left behind");
        Ok(Tally::ONE)
    })
}

fn listing(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn options<const N: usize>(options: [&str; N]) -> Vec<String> {
    options.map(str::to_owned).to_vec()
}

fn truncated_kernel(paths: &Paths) -> Row {
    let paths = paths.clone();
    let prepare = move |folder: &Path| {
        let whole = fs::read(image::kernel(&paths, image::DEFAULT_KERNEL)?)?;
        let half = whole.get(..whole.len() / 2).unwrap_or_default();
        Ok(fs::write(folder.join("vmlinuz"), half)?)
    };
    let given = options(["--kernel", "{}/vmlinuz"]);
    row("kernel-truncated", prepare, given, FAILED, "truncated")
}

/// The default kernel, with a header that says it is a 32-bit one.
fn self_test_on_32_bits(paths: &Paths) -> Row {
    const XLOADFLAGS: usize = 0x236;
    let paths = paths.clone();
    let prepare = move |folder: &Path| {
        let mut kernel = fs::read(image::kernel(&paths, image::DEFAULT_KERNEL)?)?;
        kernel[XLOADFLAGS] &= !1;
        Ok(fs::write(folder.join("vmlinuz"), kernel)?)
    };
    let given = options(["--self-test", "--kernel", "{}/vmlinuz"]);
    row("self-test-on-32-bits", prepare, given, FAILED, "--self-test: the program is a 64-bit one")
}

/// A row for a kernel that is nothing but a multiboot header with these flags, which is the VMM's
/// to judge.
fn multiboot(name: &str, flags: u32, text: &'static str) -> Row {
    const MAGIC: u32 = 0x1BAD_B002;
    let prepare = move |folder: &Path| {
        let header = [MAGIC, flags, MAGIC.wrapping_add(flags).wrapping_neg()];
        let mut kernel = header.map(u32::to_le_bytes).concat();
        kernel.resize(0x1000, 0);
        Ok(fs::write(folder.join("kernel"), kernel)?)
    };
    row(name, prepare, options(["--kernel", "{}/kernel"]), FAILED, text)
}

fn nowhere_to_go() -> Row {
    multiboot("multiboot-without-addresses", 0, "without load addresses")
}

fn unknown_demand() -> Row {
    multiboot("multiboot-unknown-demand", 1 << 15, "flag 15")
}

fn large_initrd() -> Row {
    let prepare = |folder: &Path| {
        // Sparse: takes no space.
        Ok(File::create(folder.join("initrd"))?.set_len(600 << 20)?)
    };
    let given = options(["--mem", "512", "--initrd", "{}/initrd"]);
    row("initrd-larger-than-memory", prepare, given, FAILED, "larger than the guest's memory")
}

fn log_in_use() -> Row {
    Row::new("bad-input/log-in-use", |log| {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        let held = File::create(&path)?;
        held.lock()?;
        let answer = Invocation::xtask(["run", "--log", &path.to_string_lossy()])?.run(log)?;
        answer.expect_status(FAILED)?;
        answer.expect_one_error("is in use by another run")?;
        Ok(Tally::ONE)
    })
}

fn old_qemu() -> Row {
    Row::new("bad-input/qemu-too-old", |log| {
        let folder = tempfile::tempdir()?;
        let fake = folder.path().join(crate::setup::QEMU.program);
        fs::write(&fake, "#!/bin/sh\necho QEMU emulator version 6.2.0\n")?;
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755))?;
        let mut path = folder.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let answer = Invocation::xtask(["run"])?.env("PATH", path).run(log)?;
        answer.expect_status(FAILED)?;
        answer.expect_one_error("QEMU 6.2 is too old, 7.0 or later is needed")?;
        Ok(Tally::ONE)
    })
}

fn no_qemu() -> Row {
    Row::new("bad-input/qemu-missing", |log| {
        // Without apt-get either, so that nothing gets installed for this test.
        let answer = Invocation::xtask(["run"])?.env("PATH", "/nonexistent").run(log)?;
        answer.expect_status(FAILED)?;
        answer.expect_one_error("qemu-system-x86")?;
        Ok(Tally::ONE)
    })
}
