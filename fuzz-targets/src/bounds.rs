// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one input may cost. Both bounds are far above what any input needs, and far below what
//! loops and allocations without bound take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bounds of one input.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Seconds of CPU time.
    pub seconds: u32,
    /// MiB that are allocated, freed again or not.
    pub mebibytes: u64,
}

impl Bounds {
    /// Enough for nearly all targets.
    pub const USUAL: Self = Self { seconds: 2, mebibytes: 16 };

    /// Calls `work`.
    ///
    /// # Panics
    /// If it costs more.
    pub(crate) fn hold(self, work: impl FnOnce()) {
        let (bytes, time) = (ALLOCATED.get(), cpu_milliseconds());
        work();
        let (bytes, time) = (ALLOCATED.get() - bytes, cpu_milliseconds() - time);
        assert!(bytes <= self.mebibytes << 20, "{bytes} bytes were allocated for one input");
        assert!(time <= u64::from(self.seconds) * 1000, "one input took {time} ms");
    }
}

thread_local! {
    /// Bytes that this thread has allocated so far.
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that this thread has allocated so far.
pub(crate) fn allocated() -> u64 {
    ALLOCATED.get()
}

/// CPU time of this thread; that of others is no fault of the input.
fn cpu_milliseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes a timespec to where there is one.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "every thread has a CPU clock");
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The system's allocator, and a count of what is asked of it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    ALLOCATED.set(ALLOCATED.get().wrapping_add(bytes as u64));
}

// SAFETY: everything is left to the system's allocator, as it was asked.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps to the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "were allocated")]
    fn too_much_memory_is_noticed() {
        Bounds { seconds: 60, mebibytes: 1 }.hold(|| {
            (0..20).for_each(|_| drop(std::hint::black_box(vec![0_u8; 1 << 16])));
        });
    }

    #[test]
    #[should_panic(expected = "one input took")]
    fn too_much_time_is_noticed() {
        let until = cpu_milliseconds() + 20;
        Bounds { seconds: 0, mebibytes: 1 }.hold(|| while cpu_milliseconds() < until {});
    }
}
