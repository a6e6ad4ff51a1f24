// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trait every host kernel implements.

use alloc::boxed::Box;
use core::{fmt, ptr::NonNull};

use crate::{HostConsole, HostPhysAddr, HostWallClock, PageRequest, PageRun};

/// A logical CPU of the host: an index from 0 to [`Host::cpu_count`] − 1, not an APIC ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CpuId(pub u32);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu{}", self.0)
    }
}

/// A frequency in hertz; never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hertz(pub u64);

/// A value of the host's time-stamp counter, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tsc(pub u64);

/// Why a host could not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HostError {
    /// No run of free memory satisfies the request.
    OutOfMemory(PageRequest),
    /// The heap has no room: the global allocator answered that it has no memory.
    OutOfHeap {
        /// What was asked for, in bytes.
        bytes: u64,
    },
    /// The request itself is malformed: no pages, or a bad alignment.
    InvalidRequest(PageRequest),
    /// There is no such CPU.
    NoSuchCpu(CpuId),
    /// The CPU already runs a task sent to it, or is offline.
    CpuBusy(CpuId),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory(r) => write!(
                f,
                "the host has no {} contiguous pages aligned to {:#x} left",
                r.pages, r.alignment
            ),
            Self::OutOfHeap { bytes } => {
                write!(f, "the heap of the host has no {bytes} bytes left")
            }
            Self::InvalidRequest(r) => write!(f, "invalid memory request {r:?}"),
            Self::NoSuchCpu(cpu) => write!(f, "the host has no {cpu}"),
            Self::CpuBusy(cpu) => write!(f, "{cpu} of the host is busy"),
        }
    }
}

impl core::error::Error for HostError {}

/// Work sent to another CPU.
pub type RemoteTask = Box<dyn FnOnce() + Send>;

/// The services that every host kernel gives the VMM.
///
/// Beside these, the VMM uses the global allocator for small objects and the `log` crate for
/// messages. All methods may be called from any CPU unless they say otherwise; none is called
/// from an interrupt handler.
///
/// The host owns interrupts: while a guest runs, a physical interrupt makes the CPU leave the
/// guest and reach the host's own handler before the VMM goes on.
pub trait Host: Sync {
    /// Allocates contiguous physical memory. The content is undefined.
    ///
    /// # Errors
    /// [`HostError::OutOfMemory`] or [`HostError::InvalidRequest`]; nothing is allocated then.
    fn allocate_pages(&self, request: PageRequest) -> Result<PageRun, HostError>;

    /// Gives back a run exactly as [`Host::allocate_pages`] returned it, at most once.
    fn release_pages(&self, run: PageRun);

    /// Where the CPU finds the byte at `address`, which lies in a run that was allocated and
    /// not released. The pages of one run are contiguous in this view, too, and mapped
    /// readable, writable and write-back, and stay where they are until the run is released.
    fn phys_to_virt(&self, address: HostPhysAddr) -> NonNull<u8>;

    /// Number of CPUs this host owns; at least one.
    fn cpu_count(&self) -> u32;

    /// The CPU that executes the call.
    fn current_cpu(&self) -> CpuId;

    /// Runs `task` to its end on `cpu`, on a stack of that CPU, and returns at once. The task
    /// may run for hours; the CPU does nothing else in the meantime.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`], or [`HostError::CpuBusy`] if a task runs there or `cpu` is
    /// the calling CPU.
    fn run_on(&self, cpu: CpuId, task: RemoteTask) -> Result<(), HostError>;

    /// Interrupts `cpu` so that it leaves a guest or [`Host::idle_while`]. A kick that reaches
    /// a CPU in neither has no effect. Kicking an unknown CPU does nothing.
    fn kick(&self, cpu: CpuId);

    /// Waits on this CPU, with interrupts enabled and at the least cost, for as long as
    /// `idle` says so. `idle` is evaluated again after every interrupt, and with interrupts
    /// disabled between its evaluation and the wait, so that no kick and no timer is lost.
    fn idle_while(&self, idle: &mut dyn FnMut() -> bool);

    /// Frequency of the invariant time-stamp counter, the same on all CPUs.
    fn tsc_frequency(&self) -> Hertz;

    /// The time-stamp counter now; synchronous on all CPUs.
    fn tsc(&self) -> Tsc;

    /// Arms the one-shot timer of the calling CPU, replacing an earlier deadline. When
    /// [`Host::tsc`] reaches `deadline`, or soon if it already has, the CPU is interrupted as
    /// by a kick.
    fn arm_timer(&self, deadline: Tsc);

    /// Disarms the timer of the calling CPU.
    fn cancel_timer(&self);

    /// The console stream for guest number `index` in order of creation, if the host has one
    /// for it.
    fn console(&self, index: usize) -> Option<&dyn HostConsole> {
        let _ = index;
        None
    }

    /// A clock of civil time, if the host has one.
    fn wall_clock(&self) -> Option<&dyn HostWallClock> {
        None
    }
}
