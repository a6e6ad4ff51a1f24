// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every target takes its seeds and some thousand random inputs, the same ones each time.

use std::fmt::Write as _;
use std::path::Path;

use fuzz_targets::{TARGETS, check, find};

/// Longest of them, in bytes.
const LONGEST: u64 = 400;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Bytes at random, with runs of those that mean something more often than others.
    fn bytes(&mut self) -> Vec<u8> {
        let length = self.next() % LONGEST;
        let plain = self.next().is_multiple_of(2);
        (0..length)
            .map(|_| match self.next() {
                number if plain || !number.is_multiple_of(4) => (number >> 8) as u8,
                number if number.is_multiple_of(8) => 0,
                _ => 0xFF,
            })
            .collect()
    }
}

/// Prints the input that was at work when a test fails.
struct Shown<'a>(&'a str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex = self.1.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            eprintln!("{} fails with the input {hex}", self.0);
        }
    }
}

fn replay(name: &str, inputs: u64) {
    let target = find(name).expect("a target of that name");
    let give = |input: &[u8]| {
        let shown = Shown(name, input);
        check(target, input);
        drop(shown);
    };
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&seeds)
        .unwrap_or_else(|error| panic!("{}: {error}", seeds.display()))
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has no seeds");
    for file in files {
        give(&std::fs::read(file).expect("a seed"));
    }
    let mut random = Random(name.bytes().map(u64::from).sum());
    (0..inputs).for_each(|_| give(&random.bytes()));
}

/// A test for each target, so that they run side by side, with the number of random inputs.
macro_rules! replays {
    ($($name:ident: $inputs:literal)+) => {
        $(#[test] fn $name() { replay(stringify!($name), $inputs); })+

        const REPLAYED: &[&str] = &[$(stringify!($name)),+];
    };
}

replays! {
    boot: 1_000
    bundle: 5_000
    emulator: 4_000
    emulator_native: 1_000
    exits: 400
    guest_walk: 4_000
    instruction_length: 10_000
    local_apic: 4_000
    platform: 1_000
    save_restore: 2_000
    shadow: 100
    task_switch: 2_000
}

#[test]
fn every_target_is_replayed() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED);
}
