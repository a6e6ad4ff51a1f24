// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uses all memory there is, so that whoever provides it must have mapped it.

use bare_metal::rt::start_info::words;

/// Where to begin: above the guest's image and whatever the loader left.
const START: usize = 16 << 20;
const PAGE: usize = 4096;

/// Writes to every page up to the MiB that the word `memory=MIB` names. Without it nothing is done,
/// which is a failure.
pub fn run() -> u32 {
    let number = words().find_map(|word| word.strip_prefix("memory="));
    let Some(mib) = number.and_then(|number| number.parse::<usize>().ok()) else { return 1 };
    for address in (START..mib << 20).step_by(PAGE) {
        // SAFETY: memory of the guest's own, identity-mapped, in which nothing lies.
        unsafe { (address as *mut u64).write_volatile(address as u64) };
    }
    0
}
