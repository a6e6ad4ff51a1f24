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

use doorbell::{Doorbell, VcpuLink};
use halt::HaltDetector;
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
