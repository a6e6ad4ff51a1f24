// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page frames, the heap, the clock.

use alloc::{boxed::Box, vec, vec::Vec};

use cokernel::memory::{
    allocate_frames,
    frames::{FrameError, FrameRequest, FrameRun},
    phys_to_virt, release_frames, usage,
};

use crate::{Outcome, Test, ensure};

pub(crate) const TESTS: &[Test] = &[
    ("page frames are counted exactly", frames_are_counted),
    ("page frames hold what is written", frames_hold_data),
    ("large aligned runs", large_runs),
    ("bad releases are refused", bad_releases),
    ("the heap returns to where it was", heap_is_exact),
    ("the clock knows the date", date_is_plausible),
];

fn frames_are_counted() -> Outcome {
    let before = usage();
    ensure(before.total_frames > 1024, "less than 4 MiB of memory")?;
    let run = allocate_frames(FrameRequest::contiguous(37)).map_err(|_| "no 37 frames")?;
    ensure(usage().free_frames + 37 == before.free_frames, "wrong count after allocation")?;
    release_frames(run).map_err(|_| "release refused")?;
    ensure(usage() == before, "wrong count after release")
}

fn frames_hold_data() -> Outcome {
    let request = FrameRequest { alignment: 2 << 20, ..FrameRequest::contiguous(1024) };
    let run = allocate_frames(request).map_err(|_| "no 4 MiB")?;
    ensure(run.start.0.is_multiple_of(2 << 20), "not aligned")?;
    let words = phys_to_virt(run.start).cast::<u64>();
    let count = run.frames as usize * 512;
    // SAFETY: the run is ours and contiguous in the direct map.
    let words = unsafe { core::slice::from_raw_parts_mut(words.as_ptr(), count) };
    for (index, word) in words.iter_mut().enumerate() {
        *word = !(index as u64);
    }
    let intact = words.iter().enumerate().all(|(index, word)| *word == !(index as u64));
    release_frames(run).map_err(|_| "release refused")?;
    ensure(intact, "data changed")
}

/// Takes as many aligned gigabytes as there are, checking the far end of each.
fn large_runs() -> Outcome {
    let before = usage();
    let gigabyte = FrameRequest { alignment: 1 << 30, ..FrameRequest::contiguous(1 << 18) };
    let mut runs = Vec::new();
    while let Ok(run) = allocate_frames(gigabyte) {
        let last = phys_to_virt(cokernel::PhysAddr(run.start.0 + (1 << 30) - 8)).cast::<u64>();
        // SAFETY: the run is ours.
        let kept = unsafe {
            last.write_volatile(run.start.0);
            last.read_volatile()
        };
        ensure(kept == run.start.0, "memory does not hold data")?;
        runs.push(run);
    }
    log::debug!("{} aligned runs of 1 GiB", runs.len());
    let gigabytes = before.total_frames >> 18;
    ensure(runs.len() as u64 + 2 >= gigabytes, "too few aligned runs of 1 GiB")?;
    for run in runs.drain(..) {
        release_frames(run).map_err(|_| "release refused")?;
    }
    drop(runs);
    ensure(usage() == before, "frames were lost")
}

fn bad_releases() -> Outcome {
    let run = allocate_frames(FrameRequest::contiguous(2)).map_err(|_| "no frames")?;
    release_frames(run).map_err(|_| "release refused")?;
    let low = FrameRun { start: cokernel::PhysAddr(0), frames: 1 };
    let refused = [run, low].map(release_frames);
    ensure(refused == [Err(FrameError::NotAllocated); 2], "accepted")
}

fn heap_is_exact() -> Outcome {
    let before = usage();
    for round in 0..4usize {
        let mut small: Vec<Box<[u8]>> = Vec::new();
        for i in 0..4000usize {
            small.push(vec![i as u8; i * 7 % 3000 + round].into_boxed_slice());
        }
        let large = vec![0xA5u8; 3 << 20];
        ensure(usage().heap_bytes > before.heap_bytes + (8 << 20), "live bytes not counted")?;
        let intact = small.iter().enumerate().all(|(i, s)| s.iter().all(|b| *b == i as u8));
        ensure(intact && large.iter().all(|b| *b == 0xA5), "heap objects overlap")?;
    }
    ensure(usage() == before, "heap or frames differ afterwards")
}

fn date_is_plausible() -> Outcome {
    // 2020 to 2069.
    let date = cokernel::rtc::unix_seconds().ok_or("no clock")?;
    ensure((1_577_836_800..3_155_760_000).contains(&date), "not a date of this time")
}
