// SPDX-License-Identifier: MIT OR Apache-2.0
//! libFuzzer for the target that the environment names. One program has all of them, because
//! building one takes long.
#![no_main]

use std::sync::OnceLock;

use fuzz_targets::{TARGETS, Target, check, find};
use libfuzzer_sys::fuzz_target;

/// Names the target.
const VARIABLE: &str = "ALCAZAR_FUZZ_TARGET";

fn chosen() -> Target {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    find(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("error: set {VARIABLE} to one of: {}", names.join(", "));
        std::process::exit(2)
    })
}

fuzz_target!(|input: &[u8]| {
    static TARGET: OnceLock<Target> = OnceLock::new();
    check(*TARGET.get_or_init(chosen), input);
});
