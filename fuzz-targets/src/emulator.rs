// SPDX-License-Identifier: MIT OR Apache-2.0
//! The instruction emulator.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use vmm_core::test_support::Differential;
use vmm_core::test_support::hostile;

/// Any bytes as instructions, in any mode and state: each completes or changes nothing, and the
/// work is bounded.
pub fn instructions(input: &[u8]) {
    hostile::check_instructions(input);
}

/// Any descriptors and task states: what walks through them ends.
pub fn descriptors(input: &[u8]) {
    hostile::check_descriptors(input);
}

/// Instructions that user mode can execute do what the processor does that runs this.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub fn beside_the_processor(input: &[u8]) {
    Differential::check(input);
}
