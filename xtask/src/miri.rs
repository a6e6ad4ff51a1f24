// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask miri`: unit tests of code with `unsafe`, interpreted, so that undefined behaviour
//! is seen.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::paths::Paths;
use crate::process;
use crate::result_file::ResultFile;
use crate::setup::rust::{ensure_miri, plain};

/// The crate with the tests.
const PACKAGE: &str = "vmm-core";

/// What of it has `unsafe`, or stands on it, and is more than instructions of the CPU, by the start
/// of the tests' names. What tries all of a large space has no `unsafe`, and is left out.
const MODULES: &[&str] = &[
    "memory::allocate::tests::",
    "memory::guest::tests::",
    "memory::heap::tests::",
    "memory::witness::tests::",
    "paging::nested::tests::",
    "paging::shadow::arena::tests::",
    "svm::decode::tests::",
    "svm::entry_check::tests::",
    "trap_map::tests::only_named_bits_inside_the_map_are_let_through",
    "vmx::msr_area::tests::",
    "vmx::permission::tests::",
    "vmx::virtual_apic::tests::",
    "vmx::vmcs::tests::",
];

/// Memory here has addresses that are numbers first: physical ones. And mock hosts live for ever;
/// that pages come back is counted by the tests themselves. Miri itself panics where it is to
/// remember older values of atomics that bytes were written over, as bytes of guest memory are; the
/// tests here have one thread, which sees none.
const FLAGS: &str = "-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks \
                     -Zmiri-disable-weak-memory-emulation";

/// Random tests try fewer cases: each takes a hundred times as long.
const CASES: &str = "8";

/// Runs unit tests under Miri.
#[derive(Clone, Debug, Args)]
pub struct MiriOptions {
    /// Only of modules whose name contains this
    #[arg(long, value_name = "STRING")]
    pub filter: Option<String>,
    /// Write what was run to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What became of a module's tests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Interpreted {
    module: &'static str,
    passed: usize,
    failed: usize,
}

/// Runs them; the exit status is 1 if one fails.
///
/// # Errors
/// When Miri is missing and cannot be installed, or cannot be started.
pub fn run(paths: &Paths, options: &MiriOptions) -> Result<u8> {
    let wanted = |name: &str| options.filter.as_deref().is_none_or(|part| name.contains(part));
    let modules: Vec<_> = MODULES.iter().copied().filter(|name| wanted(name)).collect();
    ensure!(!modules.is_empty(), "no module is left: give another --filter");
    let json = options.json.as_deref().map(|path| ResultFile::prepare("--json", path));
    let json = json.transpose()?;
    ensure_miri()?;
    let begin = Instant::now();
    let mut command = plain("cargo");
    command.current_dir(&paths.root).args(["+nightly", "miri", "test", "--package", PACKAGE]);
    command.arg("--lib").arg("--target-dir").arg(paths.target.join("miri"));
    command.arg("--").args(&modules);
    command.env("MIRIFLAGS", FLAGS).env("PROPTEST_CASES", CASES);
    let what = format!("interpreting tests of {PACKAGE}, which takes some minutes");
    let output = process::capture(&mut command, &what)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let results: Vec<_> = modules.iter().map(|module| result(&text, module)).collect();
    results.iter().for_each(|result| println!("{}", line(result)));
    if let Some(file) = json {
        file.write_json(&results)?;
    }
    if !output.status.success() {
        eprint!("{text}{}", String::from_utf8_lossy(&output.stderr));
        println!("FAIL  Miri, or a test: what it found is above");
    }
    let passed: usize = results.iter().map(|result| result.passed).sum();
    let failed: usize = results.iter().map(|result| result.failed).sum();
    let well = output.status.success() && results.iter().all(Interpreted::is_well);
    println!("{passed} passed, {failed} failed, in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(u8::from(!well))
}

impl Interpreted {
    /// Whether it has tests, and all of them passed.
    fn is_well(&self) -> bool {
        self.passed > 0 && self.failed == 0
    }
}

/// What the test program says of the tests of `module`. Where Miri finds something, it ends the
/// program: the tests that it did not come to are in neither number.
fn result(text: &str, module: &'static str) -> Interpreted {
    let start = format!("test {module}");
    let count = |end| {
        let is_one = |line: &&str| line.starts_with(&start) && line.ends_with(end);
        text.lines().filter(is_one).count()
    };
    Interpreted { module, passed: count(" ok"), failed: count(" FAILED") }
}

fn line(result: &Interpreted) -> String {
    let Interpreted { module, passed, failed } = result;
    let module = module.trim_end_matches("::");
    match (result.is_well(), failed) {
        (true, _) => format!("ok    {module}: {passed} tests"),
        (false, 0) => format!("FAIL  {module}: no test was run to its end"),
        (false, _) => format!("FAIL  {module}: {failed} of {} tests", passed + failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 4 tests\ntest memory::heap::tests::one ... ok\n\
        test memory::heap::tests::two ... ok\ntest vcpu::tests::memory::heap::tests::no ... ok\n\
        test vmx::vmcs::tests::three ... FAILED\ntest vmx::vmcs::tests::four ... ";

    #[test]
    fn each_module_has_its_own_tests() {
        let told = |module| line(&result(OUTPUT, module));
        assert_eq!(told("memory::heap::tests::"), "ok    memory::heap::tests: 2 tests");
        assert_eq!(told("vmx::vmcs::tests::"), "FAIL  vmx::vmcs::tests: 1 of 1 tests");
        assert!(told("trap_map::tests::").starts_with("FAIL  trap_map::tests: no test"));
    }

    #[test]
    fn the_modules_exist() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmm-core/src");
        for module in MODULES {
            let (file, test) = module.split_once("::tests::").unwrap();
            let file = root.join(file.replace("::", "/")).with_extension("rs");
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains("mod tests") && text.contains(test), "{module}");
        }
    }
}
