// SPDX-License-Identifier: MIT OR Apache-2.0
//! Protocols without locks, in thousands of random interleavings: the library's own files,
//! compiled with the atomics of a model checker.
//!
//! The checker explores sequentially consistent executions, which is what the protocols ask
//! of their atomics.

extern crate alloc;

use std::sync::Arc;

use host_iface::{
    CpuId, Hertz, Host, HostError, HostPhysAddr, PageRequest, PageRun, RemoteTask, Tsc,
};
use shuttle::{check_random, thread};

mod sync {
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}

#[path = "../src/doorbell.rs"]
#[expect(dead_code, reason = "the models use what the loop of a vCPU uses")]
mod doorbell;
#[path = "../src/vm/halt.rs"]
mod halt;
#[path = "../src/paging/shadow/shootdown.rs"]
mod shootdown;

use doorbell::{Doorbell, VcpuLink};
use halt::HaltDetector;
use shootdown::Shootdown;
use sync::{AtomicBool, AtomicU32, Ordering};

/// A host of which only the kick works: it is pending until the CPU looks.
#[derive(Default)]
struct Kicks {
    pending: AtomicBool,
}

impl Host for Kicks {
    fn kick(&self, cpu: CpuId) {
        assert_eq!(cpu, CpuId(0));
        self.pending.store(true, Ordering::SeqCst);
    }
    fn allocate_pages(&self, request: PageRequest) -> Result<PageRun, HostError> {
        Err(HostError::OutOfMemory(request))
    }
    fn release_pages(&self, _: PageRun) {}
    fn phys_to_virt(&self, _: HostPhysAddr) -> std::ptr::NonNull<u8> {
        std::ptr::NonNull::dangling()
    }
    fn cpu_count(&self) -> u32 {
        1
    }
    fn current_cpu(&self) -> CpuId {
        CpuId(0)
    }
    fn run_on(&self, cpu: CpuId, _: RemoteTask) -> Result<(), HostError> {
        Err(HostError::NoSuchCpu(cpu))
    }
    fn idle_while(&self, _: &mut dyn FnMut() -> bool) {}
    fn tsc_frequency(&self) -> Hertz {
        Hertz(1)
    }
    fn tsc(&self) -> Tsc {
        Tsc(0)
    }
    fn arm_timer(&self, _: Tsc) {}
    fn cancel_timer(&self) {}
}

/// A vCPU that runs a guest which never exits on its own account: it ends only by a kick.
/// Every ringer's work must be seen all the same.
fn no_ring_is_lost(ringers: u32) {
    let host: &'static Kicks = Box::leak(Box::default());
    let link = Arc::<VcpuLink>::default();
    let work = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..ringers)
        .map(|_| {
            let (doorbell, work) = (Doorbell::new(host, link.clone()), work.clone());
            thread::spawn(move || {
                work.fetch_add(1, Ordering::SeqCst);
                doorbell.ring();
            })
        })
        .collect();
    let mut seen = 0;
    // Each turn but the last is ended by a ring: by its flag, or by its kick, which may come
    // when the flag was taken already.
    for _ in 0..=2 * ringers {
        if link.take_attention() {
            seen = work.load(Ordering::SeqCst);
        }
        if seen == ringers {
            break;
        }
        // Interrupts are held: a kick from here on is pending at the entry.
        host.pending.store(false, Ordering::SeqCst);
        link.going_inside(CpuId(0));
        if !link.needs_attention() {
            // The guest runs until the kick comes.
            while !host.pending.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
        link.back_outside();
    }
    threads.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
    assert_eq!(seen, ringers, "somebody's work was not seen");
}

#[test]
fn a_ring_reaches_a_vcpu_that_is_about_to_enter() {
    check_random(|| no_ring_is_lost(1), 2_000);
}

#[test]
fn two_rings_reach_it() {
    check_random(|| no_ring_is_lost(2), 2_000);
}

/// Two vCPUs pass one message back and forth, each waiting behind it: no end is found before
/// the last message has arrived, and then one is.
#[test]
fn an_end_is_found_when_the_last_message_has_arrived_and_not_before() {
    const MESSAGES: u32 = 3;
    check_random(
        || {
            let shared = Arc::new((
                HaltDetector::default(),
                [AtomicBool::new(true), AtomicBool::new(false)],
                AtomicU32::new(0),
                AtomicBool::new(false),
            ));
            let vcpu = |own: usize| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (halt, mail, received, ended) = &*shared;
                    while !ended.load(Ordering::SeqCst) {
                        if mail[own].swap(false, Ordering::SeqCst)
                            && received.fetch_add(1, Ordering::SeqCst) + 1 < MESSAGES
                        {
                            mail[1 - own].store(true, Ordering::SeqCst);
                        }
                        let any = || mail.iter().any(|mail| mail.load(Ordering::SeqCst));
                        if halt.begin_wait(2, any) {
                            ended.store(true, Ordering::SeqCst);
                        }
                        while !mail[own].load(Ordering::SeqCst) && !ended.load(Ordering::SeqCst) {
                            thread::yield_now();
                        }
                        halt.end_wait();
                    }
                })
            };
            let threads = [vcpu(0), vcpu(1)];
            threads.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
            assert_eq!(shared.2.load(Ordering::SeqCst), MESSAGES, "ended too early");
        },
        2_000,
    );
}

/// A shadow table with one translation, and what a vCPU remembers of it.
#[derive(Default)]
struct Translated {
    /// The translation; 0 is none.
    table: AtomicU32,
    /// The page that it leads to was given to somebody else.
    reused: AtomicBool,
    /// Somebody wants the vCPU out of the guest.
    rung: AtomicBool,
}

/// A vCPU that uses what it has in its TLB without another look at the table, until it flushes.
/// It leaves the guest only when it is rung for, or after so many accesses.
fn use_translations(shared: &(Shootdown, Translated), vcpu: usize, entries: u32) {
    const ACCESSES: u32 = 3;
    let (shootdown, translated) = shared;
    let mut tlb = 0;
    for _ in 0..entries {
        if shootdown.enter(vcpu) {
            tlb = 0;
        }
        for _ in 0..ACCESSES {
            if tlb == 0 {
                tlb = translated.table.load(Ordering::SeqCst);
            }
            let reused = tlb != 0 && translated.reused.load(Ordering::SeqCst);
            assert!(!reused, "a page is used that was taken back");
            if translated.rung.swap(false, Ordering::SeqCst) {
                break;
            }
            thread::yield_now();
        }
        shootdown.leave(vcpu);
    }
}

/// One vCPU takes a translation back and gives the page away when the others have been flushed;
/// they go in and out of the guest all the while, and use their TLBs.
fn no_translation_outlives_a_flush(users: usize) {
    let shared = Arc::new((Shootdown::new(users + 1), Translated::default()));
    shared.1.table.store(1, Ordering::SeqCst);
    let threads: Vec<_> = (1..=users)
        .map(|vcpu| {
            let shared = shared.clone();
            thread::spawn(move || use_translations(&shared, vcpu, 3))
        })
        .collect();
    let (shootdown, translated) = &*shared;
    translated.table.store(0, Ordering::SeqCst);
    let ring = |_| translated.rung.store(true, Ordering::SeqCst);
    shootdown.flush(0, ring, thread::yield_now);
    translated.reused.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
}

#[test]
fn a_vcpu_uses_no_translation_that_was_taken_back() {
    check_random(|| no_translation_outlives_a_flush(1), 2_000);
}

#[test]
fn two_vcpus_use_no_translation_that_was_taken_back() {
    check_random(|| no_translation_outlives_a_flush(2), 2_000);
}

/// Two vCPUs that take translations back at the same time wait for each other's guests, but not
/// for each other: each is outside while it flushes, as the MMU's lock is asked for outside only.
#[test]
fn flushes_at_the_same_time_end() {
    check_random(
        || {
            let shared = Arc::new(Shootdown::new(2));
            let vcpu = |own: usize| {
                let shared = shared.clone();
                thread::spawn(move || {
                    for _ in 0..2 {
                        shared.enter(own);
                        thread::yield_now();
                        shared.leave(own);
                        shared.flush(own, |_| {}, thread::yield_now);
                        shared.outdate(own);
                        assert!(shared.enter(own), "who was outdated flushes");
                        shared.leave(own);
                    }
                })
            };
            let threads = [vcpu(0), vcpu(1)];
            threads.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
        },
        2_000,
    );
}
