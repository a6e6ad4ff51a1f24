// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stacks, each with an unmapped page below it.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{
    frames::FrameRequest,
    map_pages,
    paging::{Access, MapError},
    pool,
    stack_layout::{SET_BYTES, is_stack, stacks},
};
use crate::address::PAGE_SIZE;

const STACK_WINDOW: u64 = 0xFFFF_C000_0000_0000;

unsafe extern "C" {
    static __boot_stack_guard: u8;
    static __boot_stack_top: u8;
}

/// Sets of stacks that are mapped, from the start of the window on.
static SETS: AtomicU64 = AtomicU64::new(0);

/// The stacks of one CPU; they live as long as the machine.
pub(crate) struct CpuStacks {
    /// One past the task stack.
    pub(crate) task_stack_top: u64,
    /// One past the NMI, double fault and machine check stacks.
    pub(crate) interrupt_stack_tops: [u64; 3],
}

impl CpuStacks {
    /// The next CPU's. Called by the boot CPU alone.
    pub(crate) fn new() -> Result<Self, MapError> {
        let sets = SETS.load(Ordering::Relaxed);
        let base = STACK_WINDOW + sets * SET_BYTES;
        let stacks = stacks().map(|stack| base + stack.start..base + stack.end);
        for stack in &stacks {
            let bytes = stack.end - stack.start;
            let run = pool::allocate_frames(FrameRequest::contiguous(bytes / PAGE_SIZE))
                .map_err(|_| MapError::OutOfMemory)?;
            map_pages(stack.start, run.start, bytes, Access::ReadWrite)?;
        }
        SETS.store(sets + 1, Ordering::Relaxed);
        let [task_stack_top, interrupt_stack_tops @ ..] = stacks.map(|stack| stack.end);
        Ok(Self { task_stack_top, interrupt_stack_tops })
    }
}

/// True if the `bytes` at `address` are all of one stack, which is mapped: of a CPU's or of the
/// boot stack.
pub(crate) fn contains(address: u64, bytes: u64) -> bool {
    let bottom = &raw const __boot_stack_guard as u64 + PAGE_SIZE;
    let boot = bottom..&raw const __boot_stack_top as u64;
    let offset = address.checked_sub(STACK_WINDOW);
    offset.is_some_and(|offset| is_stack(SETS.load(Ordering::Relaxed), offset, bytes))
        || (boot.contains(&address) && address.saturating_add(bytes) <= boot.end)
}
