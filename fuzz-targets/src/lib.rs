// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is fuzzed.
//!
//! A [`Target`] makes of any bytes something that a guest, a file or a saved state could be, and
//! panics where what must hold does not. [`check`] gives it an input and asserts besides that it
//! stays within its bounds of time and memory. libFuzzer calls it (`fuzz/`), and so does a test of
//! this crate, which needs no other compiler: with the seeds, and with the same random inputs each
//! time.

mod boot;
mod bounds;
mod bundle;
mod emulator;
mod exits;
mod guest_tables;
mod host;
mod instruction_length;
mod local_apic;
mod pc;
mod platform;
mod save_restore;
mod width;

pub use bounds::Bounds;

/// Something that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which its folder of seeds has, too.
    pub name: &'static str,
    /// What one input may cost.
    pub bounds: Bounds,
    /// Takes one input.
    run: fn(&[u8]),
}

const fn target(name: &'static str, bounds: Bounds, run: fn(&[u8])) -> Target {
    Target { name, bounds, run }
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    target("boot", Bounds { mebibytes: 64, ..Bounds::USUAL }, boot::run),
    target("bundle", Bounds::USUAL, bundle::run),
    target("emulator", Bounds::USUAL, emulator::instructions),
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    target("emulator_native", Bounds::USUAL, emulator::beside_the_processor),
    target("exits", Bounds::USUAL, exits::run),
    target("guest_walk", Bounds::USUAL, guest_tables::walk),
    target("instruction_length", Bounds::USUAL, instruction_length::run),
    target("local_apic", Bounds::USUAL, local_apic::run),
    target("platform", Bounds::USUAL, platform::run),
    target("save_restore", Bounds::USUAL, save_restore::run),
    target("shadow", Bounds::USUAL, guest_tables::shadow),
    target("task_switch", Bounds::USUAL, emulator::descriptors),
];

/// The target with this name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

/// Gives `input` to `target`.
///
/// # Panics
/// If something does not hold, or took too long or too much memory.
pub fn check(target: Target, input: &[u8]) {
    target.bounds.hold(|| (target.run)(input));
}
