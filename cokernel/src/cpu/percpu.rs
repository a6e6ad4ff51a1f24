// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data that belongs to one CPU, found through its GS base.

use alloc::boxed::Box;
use core::{
    arch::asm,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use x86::msr::{IA32_GS_BASE, wrmsr};

use super::descriptors::Descriptors;
use crate::{irq_lock::IrqLock, memory::stacks::CpuStacks};

/// A task sent to a CPU.
pub type Task = Box<dyn FnOnce() + Send>;

/// Everything the co-kernel keeps for one CPU.
#[repr(C)]
pub(crate) struct PerCpu {
    /// The structure's own address, read through GS.
    this: AtomicU64,
    /// Logical number, read through GS.
    index: AtomicU32,
    pub(crate) apic_id: AtomicU32,
    /// TSC value for which the timer is armed; [`PerCpu::NO_DEADLINE`] if it is not.
    pub(crate) deadline: AtomicU64,
    /// True from the moment a task is accepted until it has returned.
    pub(crate) busy: AtomicBool,
    pub(crate) task: IrqLock<Option<Task>>,
    pub(crate) descriptors: Descriptors,
}

const THIS_OFFSET: usize = core::mem::offset_of!(PerCpu, this);
const INDEX_OFFSET: usize = core::mem::offset_of!(PerCpu, index);

impl PerCpu {
    pub(crate) const NO_DEADLINE: u64 = u64::MAX;

    pub(crate) const fn new(index: u32, apic_id: u32) -> Self {
        Self {
            this: AtomicU64::new(0),
            index: AtomicU32::new(index),
            apic_id: AtomicU32::new(apic_id),
            deadline: AtomicU64::new(Self::NO_DEADLINE),
            busy: AtomicBool::new(false),
            task: IrqLock::new(None),
            descriptors: Descriptors::new(),
        }
    }

    pub(crate) fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    /// Makes this the data of the executing CPU.
    ///
    /// # Safety
    /// It belongs to the executing CPU and to no other.
    pub(crate) unsafe fn install(&'static self) {
        self.this.store(core::ptr::from_ref(self) as u64, Ordering::Relaxed);
        // SAFETY: GS is used for nothing else.
        unsafe { wrmsr(IA32_GS_BASE, core::ptr::from_ref(self) as u64) };
    }

    /// Loads the CPU's descriptor tables with its interrupt stacks.
    ///
    /// # Safety
    /// As [`Descriptors::load`].
    pub(crate) unsafe fn load_descriptors(&'static self, stacks: &CpuStacks) {
        // SAFETY: passed on to the caller.
        unsafe { self.descriptors.load(stacks.interrupt_stack_tops) };
    }
}

/// Data of the boot CPU; in place before there is a heap.
pub(crate) static BOOT_CPU: PerCpu = PerCpu::new(0, 0);

/// Data of the executing CPU.
pub(crate) fn this_cpu() -> &'static PerCpu {
    let address: u64;
    // SAFETY: `install` ran first thing on every CPU, so GS points to a `PerCpu` that is never
    // freed and starts with its own address.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) address, const THIS_OFFSET,
            options(pure, readonly, nostack, preserves_flags));
        &*(address as *const PerCpu)
    }
}

/// Logical number of the executing CPU.
pub(crate) fn this_cpu_index() -> u32 {
    let index: u32;
    // SAFETY: as in `this_cpu`.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) index, const INDEX_OFFSET,
            options(pure, readonly, nostack, preserves_flags));
    }
    index
}
