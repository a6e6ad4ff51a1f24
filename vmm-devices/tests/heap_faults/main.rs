// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes of a heap that has no room: for what grows with a VM's configuration or with what
//! its guest does, an error or a smaller cache, and never an abort. And how much room there has to
//! be for the rest.

#[path = "../host_faults/guest.rs"]
mod guest;
#[path = "../host_faults/life.rs"]
#[expect(dead_code, reason = "the sweep of the host's calls uses all of it")]
mod life;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use host_iface::HostError;
use host_mock::{Holdings, MockHost};
use vmm_core::{
    EndReason,
    vm::{BuildError, MAX_VCPUS, VmPart},
    vmx::SampleModel,
};

use life::{Kind, Machine, Outcome, Stillborn};

/// An allocation is large from here on, in bytes: what is kept beside a shadow table is.
const LARGE: usize = 10 << 10;
/// Memory aligned so is not the heap's: the mock host takes pages there.
const PAGE: usize = 4096;

/// What docs/embedding.md wants small allocations to have room for, in bytes: for a VM, and for
/// each of its vCPUs.
const GUARANTEED: (i64, i64) = (32 << 10, 12 << 10);

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

/// Small allocations of a thread, in bytes.
#[derive(Clone, Copy)]
struct Small {
    /// Since counting began; what was there before may be gone.
    live: i64,
    /// The most of that.
    most: i64,
}

thread_local! {
    static SMALL: Cell<Small> = const { Cell::new(Small { live: 0, most: 0 }) };
}

/// Counts an allocation that has been made, or one of minus so many bytes that is gone.
fn count(bytes: i64, alignment: usize) {
    if bytes.unsigned_abs() < LARGE as u64 && alignment < PAGE {
        let Small { live, most } = SMALL.get();
        let live = live + bytes;
        SMALL.set(Small { live, most: most.max(live) });
    }
}

// SAFETY: all memory comes from and returns to the system's allocator, with the same layouts;
// none at all is an answer that the trait allows.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size(), layout.align()) {
            return std::ptr::null_mut();
        }
        count(layout.size() as i64, layout.align());
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size(), layout.align()) {
            return std::ptr::null_mut();
        }
        count(layout.size() as i64, layout.align());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if bytes > layout.size() && fails(bytes, layout.align()) {
            return std::ptr::null_mut();
        }
        // Both are there for a moment.
        count(bytes as i64, layout.align());
        count(-(layout.size() as i64), layout.align());
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as i64), layout.align());
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

/// All machines, with nested and with shadow paging.
fn kinds(vcpus: u32) -> impl Iterator<Item = Kind> {
    let machines = [
        Machine::Mock,
        Machine::Svm,
        Machine::Vmx(SampleModel::Complete),
        Machine::Vmx(SampleModel::NoUnrestrictedGuest),
        Machine::Vmx(SampleModel::NoEpt),
    ];
    let kinds = [false, true].map(|shadow| machines.map(|machine| Kind { machine, shadow, vcpus }));
    let is_none = |kind: &Kind| !kind.shadow && kind.machine == Machine::Vmx(SampleModel::NoEpt);
    kinds.into_iter().flatten().filter(move |kind| !is_none(kind))
}

/// One test at a time: there is one heap.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn large_allocations_fail_without_harm() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let host = MockHost::leak(3);
    host.sleep_when_idle();
    let mut met = 0;
    for kind in kinds(2) {
        let first_unmet = (1..).find(|&number| !live(host, kind, number));
        met += first_unmet.map_or(0, |number| number - 1);
    }
    assert!(met > 0, "there was none");
}

/// Those that are asked for and those of the mock host count, too.
#[test]
fn small_allocations_stay_below_what_hosts_guarantee() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let host = MockHost::leak(3);
    for vcpus in [1, 2, MAX_VCPUS] {
        // Guests run on the mock's alone, and it has too few CPUs for the most.
        for kind in kinds(vcpus).filter(|kind| kind.machine != Machine::Mock) {
            SMALL.set(Small { live: 0, most: 0 });
            let outcome = life::live(host, kind);
            assert!(matches!(outcome, Outcome::Built), "{kind:?}: {outcome:?}");
            let Small { most, .. } = SMALL.get();
            let (vm, vcpu) = GUARANTEED;
            let all = vm + vcpu * i64::from(vcpus);
            // A count that works is not much below.
            assert!((all / 3..=all).contains(&most), "{kind:?}: {most} bytes");
        }
    }
}
