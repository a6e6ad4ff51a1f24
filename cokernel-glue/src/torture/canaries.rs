// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that belongs to nobody, filled with what can be told again from its address.

use alloc::vec::Vec;

use cokernel::{
    PAGE_SIZE, PhysAddr,
    memory::{
        self,
        frames::{FrameRequest, FrameRun},
    },
};

/// Frames of the runs that are taken, the largest first: 16 MiB to 64 KiB.
const RUN_FRAMES: [u64; 4] = [4096, 512, 64, 16];

/// Frames that stay free for what comes and goes in a round: the heap's reserve and as much again.
const LEFT_FREE: u64 = 2 * crate::host::HEAP_RESERVE;

/// Pages that a glance looks at.
const GLANCE: u64 = 64;

/// An odd number with its bits well mixed (2^64 over the golden ratio).
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Memory that is watched. It goes back when dropped.
pub struct Canaries {
    runs: Vec<FrameRun>,
    /// Where the next glance begins: a run, and a frame of it.
    next: (usize, u64),
}

impl Canaries {
    /// Takes and fills free memory, at most so many bytes. What is free beside guests that are
    /// there is next to their memory.
    pub fn take(most: u64) -> Self {
        let mut runs = Vec::new();
        let mut left = most / PAGE_SIZE;
        for frames in RUN_FRAMES {
            let request = FrameRequest::contiguous(frames);
            while frames <= left && memory::usage().free_frames >= frames + LEFT_FREE {
                let Ok(run) = memory::allocate_frames(request) else { break };
                left -= frames;
                fill(run);
                runs.push(run);
            }
        }
        Self { runs, next: (0, 0) }
    }

    /// How many bytes are watched.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.frames * PAGE_SIZE).sum()
    }

    /// Looks at some pages, others each time; the address of a word that was changed.
    pub fn glance(&mut self) -> Option<PhysAddr> {
        let mut left = GLANCE;
        while left > 0 {
            let (index, frame) = self.next;
            let Some(run) = self.runs.get(index) else {
                self.next = (0, 0);
                return None;
            };
            let frames = left.min(run.frames - frame);
            left -= frames;
            self.next = match frame + frames == run.frames {
                true => (index + 1, 0),
                false => (index, frame + frames),
            };
            let part = FrameRun { start: PhysAddr(run.start.0 + frame * PAGE_SIZE), frames };
            if let Some(changed) = changed(part) {
                return Some(changed);
            }
        }
        None
    }

    /// Looks at all of it; the address of a word that was changed.
    pub fn look(&self) -> Option<PhysAddr> {
        self.runs.iter().find_map(|run| changed(*run))
    }

    /// Changes a byte in the first page.
    #[cfg(feature = "fault-injection")]
    pub fn damage(&self) {
        if let Some(run) = self.runs.first() {
            let byte = memory::phys_to_virt(PhysAddr(run.start.0 + 0x123)).as_ptr();
            // SAFETY: the frames are this value's own, and mapped.
            unsafe { byte.write_volatile(!byte.read_volatile()) };
        }
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        for run in self.runs.drain(..) {
            if let Err(error) = memory::release_frames(run) {
                log::error!("watched memory at {} was not released: {error}", run.start);
            }
        }
    }
}

/// What the word at `address` holds.
const fn word(address: u64) -> u64 {
    address.wrapping_mul(FACTOR)
}

fn words(run: FrameRun) -> impl Iterator<Item = (u64, *mut u64)> {
    let end = run.start.0 + run.frames * PAGE_SIZE;
    let base = memory::phys_to_virt(run.start).cast::<u64>().as_ptr();
    let addresses = (run.start.0..end).step_by(8);
    addresses.enumerate().map(move |(index, address)| (address, base.wrapping_add(index)))
}

fn fill(run: FrameRun) {
    for (address, place) in words(run) {
        // SAFETY: the frames were just allocated, and are mapped.
        unsafe { place.write_volatile(word(address)) };
    }
}

fn changed(run: FrameRun) -> Option<PhysAddr> {
    words(run)
        // SAFETY: the frames are held by the canaries, and mapped.
        .find(|&(address, place)| unsafe { place.read_volatile() } != word(address))
        .map(|(address, _)| PhysAddr(address))
}
