// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes of a heap that has no room: for what grows with a VM's configuration or with what
//! its guest does, an error or a smaller cache, and never an abort.

#[path = "../host_faults/guest.rs"]
mod guest;
#[path = "../host_faults/life.rs"]
#[expect(dead_code, reason = "the sweep of the host's calls uses all of it")]
mod life;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

use host_iface::HostError;
use host_mock::{Holdings, MockHost};
use vmm_core::{
    EndReason,
    vm::{BuildError, VmPart},
    vmx::SampleModel,
};

use life::{Kind, Machine, Outcome, Stillborn};

/// An allocation is large from here on, in bytes: what is kept beside a shadow table is.
const LARGE: usize = 10 << 10;
/// Memory aligned so is not the heap's: the mock host takes pages there.
const PAGE: usize = 4096;

/// The heap, of whose large allocations one fails.
struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// How many large allocations are served until one is not; zero: all are.
static FAILS_IN: AtomicU64 = AtomicU64::new(0);

fn fails(bytes: usize, alignment: usize) -> bool {
    if bytes < LARGE || alignment >= PAGE {
        return false;
    }
    let count = |left: u64| left.checked_sub(1);
    FAILS_IN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1)
}

// SAFETY: all memory comes from and returns to the system's allocator, with the same layouts;
// none at all is an answer that the trait allows.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size(), layout.align()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size(), layout.align()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if bytes > layout.size() && fails(bytes, layout.align()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Lives a life in which the large allocation with this number fails. True if there was one.
fn live(host: &'static MockHost, kind: Kind, number: u64) -> bool {
    FAILS_IN.store(number, Ordering::SeqCst);
    let outcome = life::live(host, kind);
    let met = FAILS_IN.swap(0, Ordering::SeqCst) == 0;
    match outcome {
        Outcome::Stillborn(Stillborn::Build(BuildError::Host { part, error })) => {
            assert!(met, "{kind:?}: {error}");
            assert_ne!(part, VmPart::Memory);
            assert!(matches!(error, HostError::OutOfHeap { .. }), "{kind:?}: {error}");
        }
        Outcome::Ended(EndReason::ExitPort(0), output) => assert_eq!(output, guest::OUTPUT),
        Outcome::Built => {}
        other => panic!("{kind:?}, allocation {number}: {other:?}"),
    }
    assert_eq!(host.holdings(), Holdings::default(), "{kind:?}, allocation {number}");
    met
}

#[test]
fn large_allocations_fail_without_harm() {
    let host = MockHost::leak(3);
    host.sleep_when_idle();
    let machines = [
        Machine::Mock,
        Machine::Svm,
        Machine::Vmx(SampleModel::Complete),
        Machine::Vmx(SampleModel::NoUnrestrictedGuest),
        Machine::Vmx(SampleModel::NoEpt),
    ];
    let mut met = 0;
    for machine in machines {
        for shadow in [false, true] {
            if !shadow && machine == Machine::Vmx(SampleModel::NoEpt) {
                continue;
            }
            let kind = Kind { machine, shadow, vcpus: 2 };
            let first_unmet = (1..).find(|&number| !live(host, kind, number));
            met += first_unmet.map_or(0, |number| number - 1);
        }
    }
    assert!(met > 0, "there was none");
}
