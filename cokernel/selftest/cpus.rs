// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several CPUs. On a machine with one, only what concerns one is tested.

use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use cokernel::{
    memory::{allocate_frames, frames::FrameRequest, release_frames, usage},
    smp::{RunError, cpu_count, current_cpu, idle_while, is_free, kick, run_on},
    time::{arm, cancel, tsc, tsc_hz},
};
use x86::controlregs::{Cr4, cr4};

use crate::{Outcome, Test, ensure};

pub(crate) const TESTS: &[Test] = &[
    ("tasks run on the CPU they are sent to", tasks_run_where_sent),
    ("unknown and busy CPUs are refused", refusals),
    ("tasks have at least 64 KiB of stack", task_stacks),
    ("a kick ends a wait on every CPU", kicks_end_waits),
    ("no kick is lost in ping-pong", ping_pong),
    ("a far deadline does not disturb a wait", far_deadline_is_quiet),
    ("heap and frames are safe on all CPUs", memory_on_all_cpus),
    ("the boot CPU can kick itself", self_kick),
    ("machine checks are reported on every CPU", machine_checks_are_on),
];

const PING_PONGS: u32 = 20_000;

fn others() -> core::ops::Range<u32> {
    1..cpu_count()
}

/// Waits, without sleeping, until `condition` holds, for at most 10 seconds.
fn wait_until(condition: impl Fn() -> bool) -> Outcome {
    let end = tsc() + tsc_hz() * 10;
    while !condition() {
        ensure(tsc() < end, "nothing happens")?;
        core::hint::spin_loop();
    }
    Ok(())
}

fn all_free() -> Outcome {
    wait_until(|| others().all(is_free))
}

fn tasks_run_where_sent() -> Outcome {
    ensure(current_cpu() == 0, "main does not run on CPU 0")?;
    for round in 0..50 {
        let places: Arc<Vec<AtomicU32>> =
            Arc::new((0..cpu_count()).map(|_| AtomicU32::new(0)).collect());
        for cpu in others() {
            let places = places.clone();
            let task = move || {
                if let Some(place) = places.get(current_cpu() as usize) {
                    place.fetch_add(round + cpu, Ordering::Relaxed);
                }
            };
            run_on(cpu, Box::new(task)).map_err(|_| "refused")?;
        }
        all_free()?;
        let right = others().all(|cpu| places[cpu as usize].load(Ordering::Relaxed) == round + cpu);
        ensure(right, "ran elsewhere, or not once")?;
        ensure(Arc::strong_count(&places) == 1, "a task was not dropped")?;
    }
    Ok(())
}

/// Every CPU with long mode has machine checks; while CR4.MCE is clear, one resets the machine.
fn machine_checks_are_on() -> Outcome {
    let are_on = || {
        // SAFETY: reading CR4 has no effect.
        unsafe { cr4() }.contains(Cr4::CR4_ENABLE_MACHINE_CHECK)
    };
    ensure(are_on(), "not on the boot CPU")?;
    let count = Arc::new(AtomicU32::new(0));
    for cpu in others() {
        let count = count.clone();
        let task = move || {
            count.fetch_add(are_on().into(), Ordering::Relaxed);
        };
        run_on(cpu, Box::new(task)).map_err(|_| "refused")?;
    }
    all_free()?;
    ensure(count.load(Ordering::Relaxed) == cpu_count() - 1, "not on all others")
}

fn refusals() -> Outcome {
    let beyond = cpu_count();
    let unknown = run_on(beyond, Box::new(|| ()));
    ensure(unknown == Err(RunError::NoSuchCpu(beyond)), "unknown CPU")?;
    ensure(run_on(0, Box::new(|| ())) == Err(RunError::Busy(0)), "the calling CPU")?;
    kick(beyond);
    for cpu in others() {
        let release = Arc::new(AtomicBool::new(false));
        let waiting = release.clone();
        let task = move || idle_while(&mut || !waiting.load(Ordering::Acquire));
        run_on(cpu, Box::new(task)).map_err(|_| "refused")?;
        let second = run_on(cpu, Box::new(|| ()));
        release.store(true, Ordering::Release);
        kick(cpu);
        ensure(second == Err(RunError::Busy(cpu)), "a busy CPU took a task")?;
    }
    all_free()
}

#[inline(never)]
fn use_stack() -> u64 {
    let mut block = [1u8; 64 << 10];
    core::hint::black_box(&mut block).iter().map(|byte| u64::from(*byte)).sum()
}

fn task_stacks() -> Outcome {
    let total = Arc::new(AtomicU64::new(0));
    for cpu in others() {
        let total = total.clone();
        let task = move || {
            total.fetch_add(use_stack(), Ordering::Relaxed);
        };
        run_on(cpu, Box::new(task)).map_err(|_| "refused")?;
    }
    all_free()?;
    let expected = u64::from(cpu_count() - 1) << 16;
    ensure(total.load(Ordering::Relaxed) == expected, "wrong sum")
}

fn kicks_end_waits() -> Outcome {
    for cpu in others() {
        let wakes = Arc::new(AtomicU32::new(0));
        let seen = wakes.clone();
        let task = move || {
            idle_while(&mut || seen.fetch_add(1, Ordering::AcqRel) < 3);
        };
        run_on(cpu, Box::new(task)).map_err(|_| "refused")?;
        for looks in 1..4 {
            wait_until(|| wakes.load(Ordering::Acquire) >= looks)?;
            kick(cpu);
        }
        wait_until(|| is_free(cpu))?;
    }
    Ok(())
}

/// Takes turns between the boot CPU and another one, each waiting in between, with a timer
/// that comes now and then at the most awkward moment.
fn ping_pong() -> Outcome {
    if cpu_count() == 1 {
        return Ok(());
    }
    let partner = cpu_count() - 1;
    let turn = Arc::new(AtomicU32::new(0));
    let start = tsc();
    let theirs = turn.clone();
    let task = move || play(&theirs, 1, 0);
    run_on(partner, Box::new(task)).map_err(|_| "refused")?;
    play(&turn, 0, partner);
    cancel();
    let each = (tsc() - start) / (u64::from(PING_PONGS) * 2);
    log::debug!("a kick takes {} ns", each * 1000 / (tsc_hz() / 1_000_000));
    all_free()
}

fn play(turn: &AtomicU32, own: u32, partner: u32) {
    for round in 0..PING_PONGS {
        if round % 3 == 0 {
            arm(tsc() + u64::from(round % 64) * 100);
        }
        idle_while(&mut || turn.load(Ordering::Acquire) != own);
        turn.store(1 - own, Ordering::Release);
        kick(partner);
    }
}

fn far_deadline_is_quiet() -> Outcome {
    let Some(cpu) = others().next() else { return Ok(()) };
    let looks = Arc::new(AtomicU32::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (their_looks, their_stop) = (looks.clone(), stop.clone());
    let task = move || {
        // Days away.
        arm(tsc() + (1 << 50));
        idle_while(&mut || {
            their_looks.fetch_add(1, Ordering::Relaxed);
            !their_stop.load(Ordering::Acquire)
        });
        cancel();
    };
    run_on(cpu, Box::new(task)).map_err(|_| "refused")?;
    let end = tsc() + tsc_hz() / 20;
    while tsc() < end {
        core::hint::spin_loop();
    }
    let during = looks.load(Ordering::Relaxed);
    stop.store(true, Ordering::Release);
    kick(cpu);
    all_free()?;
    ensure(during <= 1, "the wait was interrupted")
}

fn memory_on_all_cpus() -> Outcome {
    let before = usage();
    let damaged = Arc::new(AtomicU32::new(0));
    for cpu in others() {
        let damaged = damaged.clone();
        let task = move || {
            damaged.fetch_add(u32::from(!exercise_memory(cpu)), Ordering::Relaxed);
        };
        run_on(cpu, Box::new(task)).map_err(|_| "refused")?;
    }
    let here = exercise_memory(0);
    all_free()?;
    ensure(here && damaged.load(Ordering::Relaxed) == 0, "memory was damaged or refused")?;
    drop(damaged);
    ensure(usage() == before, "memory was lost")
}

fn exercise_memory(seed: u32) -> bool {
    (0..400u32).all(|round| {
        let byte = (seed * 31 + round) as u8;
        let blocks: Vec<Vec<u8>> =
            (1..20).map(|size| vec![byte; size * (round as usize % 50 + 1)]).collect();
        let Ok(run) = allocate_frames(FrameRequest::contiguous(u64::from(round % 7) + 1)) else {
            return false;
        };
        let intact = blocks.iter().flatten().all(|b| *b == byte);
        intact && release_frames(run).is_ok()
    })
}

fn self_kick() -> Outcome {
    let mut looks = 0;
    idle_while(&mut || {
        looks += 1;
        if looks < 3 {
            kick(0);
        }
        looks < 3
    });
    ensure(looks == 3, "wrong number of wakes")
}
