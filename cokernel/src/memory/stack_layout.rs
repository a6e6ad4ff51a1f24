// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the stacks of a CPU lie behind each other, each above a page that is not mapped.

use core::ops::Range;

use crate::address::PAGE_SIZE;

/// Stack on which main or tasks run, and the interrupts that arrive meanwhile, in bytes.
const TASK_STACK: u64 = 128 << 10;
/// Stack for an NMI, double fault or machine check, which may print a backtrace, in bytes.
const INTERRUPT_STACK: u64 = 32 << 10;

/// Sizes of a CPU's stacks in bytes: that of tasks, and those of NMIs, double faults and machine
/// checks.
const STACKS: [u64; 4] = [TASK_STACK, INTERRUPT_STACK, INTERRUPT_STACK, INTERRUPT_STACK];

/// What the stacks of a CPU take of the address space, in bytes.
pub const SET_BYTES: u64 = TASK_STACK + 3 * INTERRUPT_STACK + STACKS.len() as u64 * PAGE_SIZE;

/// The stacks of a CPU, in bytes from the start of its set.
pub fn stacks() -> [Range<u64>; 4] {
    let mut end = 0;
    STACKS.map(|bytes| {
        let start = end + PAGE_SIZE;
        end = start + bytes;
        start..end
    })
}

/// True if the `bytes` at `offset`, from the start of the first of `sets` that lie behind each
/// other, are all of one stack.
pub fn is_stack(sets: u64, offset: u64, bytes: u64) -> bool {
    let within = offset % SET_BYTES;
    let inside = |stack: &Range<u64>| {
        stack.contains(&within) && within.checked_add(bytes).is_some_and(|end| end <= stack.end)
    };
    offset / SET_BYTES < sets && stacks().iter().any(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a backtrace reads there would fault.
    #[test]
    fn a_page_between_two_stacks_is_none() {
        assert_eq!(stacks()[3].end, SET_BYTES);
        for set in [0, 2] {
            let base = set * SET_BYTES;
            for Range { start, end } in stacks() {
                for (offset, expected) in [
                    (start - PAGE_SIZE, false),
                    (start - 16, false),
                    (start - 8, false),
                    (start, true),
                    (end - 16, true),
                    (end - 8, false),
                ] {
                    assert_eq!(is_stack(3, base + offset, 16), expected, "{offset:#x} of {set}");
                }
            }
        }
        let first = stacks()[0].start;
        assert!(is_stack(1, first, 16) && !is_stack(1, SET_BYTES + first, 16));
        assert!(!is_stack(0, first, 16) && !is_stack(1, first, u64::MAX));
    }
}
