// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stacks, each with an unmapped page below it.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{
    frames::FrameRequest,
    map_pages,
    paging::{Access, MapError},
    pool,
};
use crate::address::PAGE_SIZE;

const STACK_WINDOW: u64 = 0xFFFF_C000_0000_0000;
/// Stack on which main or tasks run, and the interrupts that arrive meanwhile.
const TASK_STACK_BYTES: u64 = 128 << 10;
/// Stack for an NMI, double fault or machine check, which may print a backtrace.
const INTERRUPT_STACK_BYTES: u64 = 32 << 10;

unsafe extern "C" {
    static __boot_stack_guard: u8;
    static __boot_stack_top: u8;
}

static NEXT_STACK: AtomicU64 = AtomicU64::new(STACK_WINDOW);

/// The stacks of one CPU; they live as long as the machine.
pub(crate) struct CpuStacks {
    /// One past the task stack.
    pub(crate) task_stack_top: u64,
    /// One past the NMI, double fault and machine check stacks.
    pub(crate) interrupt_stack_tops: [u64; 3],
}

impl CpuStacks {
    pub(crate) fn new() -> Result<Self, MapError> {
        let interrupt = || allocate(INTERRUPT_STACK_BYTES);
        Ok(Self {
            task_stack_top: allocate(TASK_STACK_BYTES)?,
            interrupt_stack_tops: [interrupt()?, interrupt()?, interrupt()?],
        })
    }
}

fn allocate(bytes: u64) -> Result<u64, MapError> {
    let guard = NEXT_STACK.fetch_add(PAGE_SIZE + bytes, Ordering::Relaxed);
    let run = pool::allocate_frames(FrameRequest::contiguous(bytes / PAGE_SIZE))
        .map_err(|_| MapError::OutOfMemory)?;
    map_pages(guard + PAGE_SIZE, run.start, bytes, Access::ReadWrite)?;
    Ok(guard + PAGE_SIZE + bytes)
}

/// True if the `bytes` at `address` are in the range of stacks in use, or in the boot stack.
pub(crate) fn contains(address: u64, bytes: u64) -> bool {
    let boot = &raw const __boot_stack_guard as u64..&raw const __boot_stack_top as u64;
    let end = address.saturating_add(bytes);
    (STACK_WINDOW <= address && end <= NEXT_STACK.load(Ordering::Relaxed))
        || (boot.start <= address && end <= boot.end)
}
