// SPDX-License-Identifier: MIT OR Apache-2.0
//! The allocator of physical page frames.
//!
//! Free memory is a sorted list of extents that never touch each other. The pattern it serves
//! is few, huge runs (guest memory) and some single pages (page tables), so the list is short.
//! A run is carved from the smallest extent that can hold it, which keeps large aligned runs
//! available.

use core::fmt;

use crate::address::{PAGE_SIZE, PhysAddr};

/// A request for contiguous frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRequest {
    /// Number of 4 KiB frames; at least one.
    pub frames: u64,
    /// Alignment of the first frame in bytes; a power of two, at least 4096.
    pub alignment: u64,
    /// The run must end at or below this address.
    pub below: u64,
    /// NUMA node to take it from; ignored as long as the co-kernel does not read the SRAT.
    pub node: Option<u32>,
}

impl FrameRequest {
    /// `frames` contiguous frames, anywhere.
    pub const fn contiguous(frames: u64) -> Self {
        Self { frames, alignment: PAGE_SIZE, below: u64::MAX, node: None }
    }
}

/// Contiguous page frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameRun {
    /// Address of the first frame.
    pub start: PhysAddr,
    /// Number of 4 KiB frames.
    pub frames: u64,
}

impl FrameRun {
    const fn end(&self) -> u64 {
        self.start.0 + self.frames * PAGE_SIZE
    }

    /// The end, if the run is well formed.
    fn checked_end(&self) -> Option<u64> {
        let bytes = self.frames.checked_mul(PAGE_SIZE)?;
        let end = self.start.0.checked_add(bytes)?;
        (self.frames > 0 && self.start.0.is_multiple_of(PAGE_SIZE)).then_some(end)
    }
}

/// Why frames could not be allocated or released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// The request has no frames, or an alignment that is no power of two of at least 4096.
    InvalidRequest,
    /// No free extent satisfies the request.
    OutOfMemory,
    /// The run to release is malformed, not memory of this allocator, or (partly) free.
    NotAllocated,
    /// The list of extents is full.
    TooManyExtents,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidRequest => "the request for page frames is malformed",
            Self::OutOfMemory => "no run of free page frames satisfies the request",
            Self::NotAllocated => "the page frames to release are not allocated",
            Self::TooManyExtents => "free memory is too fragmented for the list of extents",
        })
    }
}

impl core::error::Error for FrameError {}

/// The allocator. All its state is in two sorted lists, borrowed so that it needs no heap.
pub struct FrameAllocator<'a> {
    extents: &'a mut [FrameRun],
    length: usize,
    managed: &'a [FrameRun],
    free: u64,
}

impl<'a> FrameAllocator<'a> {
    /// An allocator of `managed`, sorted and disjoint runs that do not touch, all free.
    /// `storage` bounds the number of free extents.
    ///
    /// # Errors
    /// [`FrameError::TooManyExtents`] if `storage` is shorter than `managed`.
    pub fn new(managed: &'a [FrameRun], storage: &'a mut [FrameRun]) -> Result<Self, FrameError> {
        storage
            .get_mut(..managed.len())
            .ok_or(FrameError::TooManyExtents)?
            .copy_from_slice(managed);
        let free = managed.iter().map(|run| run.frames).sum();
        Ok(Self { extents: storage, length: managed.len(), managed, free })
    }

    /// Number of free frames.
    pub fn free_frames(&self) -> u64 {
        self.free
    }

    /// Number of frames, free or not.
    pub fn total_frames(&self) -> u64 {
        self.managed.iter().map(|run| run.frames).sum()
    }

    /// True if one more release could fail for lack of storage.
    pub fn is_storage_low(&self) -> bool {
        self.length + 2 > self.extents.len()
    }

    /// How many extents the storage holds.
    pub fn storage_capacity(&self) -> usize {
        self.extents.len()
    }

    /// Moves the list to `storage`, which must be longer, and returns the former storage.
    ///
    /// # Errors
    /// [`FrameError::TooManyExtents`] if it is too short; nothing is changed then.
    pub fn adopt_storage(
        &mut self,
        storage: &'a mut [FrameRun],
    ) -> Result<&'a mut [FrameRun], FrameError> {
        storage
            .get_mut(..self.length)
            .ok_or(FrameError::TooManyExtents)?
            .copy_from_slice(self.extents());
        Ok(core::mem::replace(&mut self.extents, storage))
    }

    /// Takes a run out of free memory.
    ///
    /// # Errors
    /// [`FrameError::InvalidRequest`], [`FrameError::OutOfMemory`], or
    /// [`FrameError::TooManyExtents`]; nothing is allocated then.
    pub fn allocate(&mut self, request: FrameRequest) -> Result<FrameRun, FrameError> {
        let FrameRequest { frames, alignment, below, node: _ } = request;
        if frames == 0 || !alignment.is_power_of_two() || alignment < PAGE_SIZE {
            return Err(FrameError::InvalidRequest);
        }
        let bytes = frames.checked_mul(PAGE_SIZE).ok_or(FrameError::OutOfMemory)?;
        let (index, start) = self
            .extents()
            .iter()
            .enumerate()
            .filter_map(|(index, extent)| {
                let start = extent.start.0.checked_next_multiple_of(alignment)?;
                let end = start.checked_add(bytes)?;
                (end <= extent.end().min(below)).then_some((index, start, extent.frames))
            })
            .min_by_key(|&(.., extent_frames)| extent_frames)
            .map(|(index, start, _)| (index, start))
            .ok_or(FrameError::OutOfMemory)?;
        let run = FrameRun { start: PhysAddr(start), frames };
        self.carve(index, run)?;
        self.free -= frames;
        Ok(run)
    }

    /// Gives a run, or a part of one, back.
    ///
    /// # Errors
    /// [`FrameError::NotAllocated`] or [`FrameError::TooManyExtents`]; nothing is changed then.
    pub fn release(&mut self, run: FrameRun) -> Result<(), FrameError> {
        let end = run.checked_end().ok_or(FrameError::NotAllocated)?;
        let inside = |m: &FrameRun| m.start.0 <= run.start.0 && end <= m.end();
        if !self.managed.iter().any(inside) {
            return Err(FrameError::NotAllocated);
        }
        // The first extent that starts behind the run.
        let next = self.extents().partition_point(|extent| extent.start.0 < run.start.0);
        let before = next.checked_sub(1).and_then(|i| self.extents().get(i)).copied();
        let after = self.extents().get(next).copied();
        if before.is_some_and(|b| b.end() > run.start.0) || after.is_some_and(|a| a.start.0 < end) {
            return Err(FrameError::NotAllocated);
        }
        let joins_before = before.is_some_and(|b| b.end() == run.start.0);
        let joins_after = after.is_some_and(|a| a.start.0 == end);
        match (before, after) {
            (Some(b), Some(a)) if joins_before && joins_after => {
                self.extents[next - 1].frames = b.frames + run.frames + a.frames;
                self.remove(next);
            }
            (Some(_), _) if joins_before => self.extents[next - 1].frames += run.frames,
            (_, Some(a)) if joins_after => {
                self.extents[next] = FrameRun { start: run.start, frames: run.frames + a.frames };
            }
            _ => self.insert(next, run)?,
        }
        self.free += run.frames;
        Ok(())
    }

    /// The free extents, sorted.
    pub fn extents(&self) -> &[FrameRun] {
        &self.extents[..self.length]
    }

    /// Removes `run`, which lies inside extent `index`, from it.
    fn carve(&mut self, index: usize, run: FrameRun) -> Result<(), FrameError> {
        let extent = self.extents[index];
        let head = (run.start.0 - extent.start.0) / PAGE_SIZE;
        let tail =
            FrameRun { start: PhysAddr(run.end()), frames: extent.frames - head - run.frames };
        match (head, tail.frames) {
            (0, 0) => self.remove(index),
            (0, _) => self.extents[index] = tail,
            (_, 0) => self.extents[index].frames = head,
            _ => {
                self.insert(index + 1, tail)?;
                self.extents[index].frames = head;
            }
        }
        Ok(())
    }

    fn insert(&mut self, index: usize, run: FrameRun) -> Result<(), FrameError> {
        if self.length == self.extents.len() {
            return Err(FrameError::TooManyExtents);
        }
        self.extents.copy_within(index..self.length, index + 1);
        self.extents[index] = run;
        self.length += 1;
        Ok(())
    }

    fn remove(&mut self, index: usize) {
        self.extents.copy_within(index + 1..self.length, index);
        self.length -= 1;
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn run(start: u64, bytes: u64) -> FrameRun {
        FrameRun { start: PhysAddr(start), frames: bytes / PAGE_SIZE }
    }

    fn allocator(managed: &[FrameRun], storage: usize) -> FrameAllocator<'static> {
        let managed = Vec::leak(managed.to_vec());
        FrameAllocator::new(managed, Vec::leak(vec![FrameRun::default(); storage])).unwrap()
    }

    #[test]
    fn small_requests_spare_the_large_extent() {
        let mut a = allocator(&[run(0x10_0000, 0x10_0000), run(GIB, 4 * GIB)], 16);
        assert_eq!(a.allocate(FrameRequest::contiguous(1)).unwrap().start.0, 0x10_0000);
        let big = FrameRequest { alignment: GIB, ..FrameRequest::contiguous(GIB / 4096 * 4) };
        let big = a.allocate(big).unwrap();
        assert_eq!(big.start.0, GIB);
        assert_eq!(a.free_frames(), 255);
        a.release(big).unwrap();
        assert_eq!(a.extents().last(), Some(&big));
    }

    #[test]
    fn limit_and_invalid_requests() {
        let mut a = allocator(&[run(0x10_0000, 0x10_0000), run(GIB, 4 * GIB)], 16);
        let low = FrameRequest { below: GIB, ..FrameRequest::contiguous(257) };
        assert_eq!(a.allocate(low), Err(FrameError::OutOfMemory));
        for (frames, alignment) in [(0, 4096), (1, 2048), (1, 12288), (1, 0)] {
            let bad = FrameRequest { alignment, ..FrameRequest::contiguous(frames) };
            assert_eq!(a.allocate(bad), Err(FrameError::InvalidRequest));
        }
        let huge = FrameRequest::contiguous(u64::MAX);
        assert_eq!(a.allocate(huge), Err(FrameError::OutOfMemory));
    }

    #[test]
    fn bad_releases_are_refused() {
        let mut a = allocator(&[run(0x10_0000, 0x10_0000)], 16);
        let good = a.allocate(FrameRequest::contiguous(4)).unwrap();
        let free = a.free_frames();
        let bad = [
            FrameRun { frames: 5, ..good },
            FrameRun { frames: 0, ..good },
            FrameRun { frames: u64::MAX, ..good },
            FrameRun { start: PhysAddr(good.start.0 + 1), frames: 1 },
            run(0x1000, 4096),
            run(0xF_F000, 8192),
        ];
        for bad in bad {
            assert_eq!(a.release(bad), Err(FrameError::NotAllocated));
        }
        assert_eq!(a.free_frames(), free);
        a.release(good).unwrap();
        assert_eq!(a.release(good), Err(FrameError::NotAllocated));
    }

    #[test]
    fn storage_can_be_enlarged() {
        let mut a = allocator(&[run(0x10_0000, 0x10_0000)], 1);
        let first = a.allocate(FrameRequest::contiguous(1)).unwrap();
        a.allocate(FrameRequest::contiguous(1)).unwrap();
        assert_eq!(a.release(first), Err(FrameError::TooManyExtents));
        assert!(a.is_storage_low());
        a.adopt_storage(Vec::leak(vec![FrameRun::default(); 8])).unwrap();
        a.release(first).unwrap();
        assert_eq!(a.extents().len(), 2);
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Frame {
        Free,
        Taken,
        NoMemory,
    }

    /// The frames from 1 on of a small memory with a hole.
    const SMALL: [Frame; 6] =
        [Frame::Free, Frame::Free, Frame::NoMemory, Frame::Free, Frame::Free, Frame::Free];

    fn frames(model: &mut [Frame; 6], run: FrameRun) -> &mut [Frame] {
        let first = (run.start.0 / PAGE_SIZE - 1) as usize;
        &mut model[first..first + run.frames as usize]
    }

    /// Takes the steps that are the digits of `sequence`: one to three frames are asked for, or
    /// one of the runs of one or two frames is released, whatever it is.
    fn play(sequence: u64) {
        let managed = [run(0x1000, 0x2000), run(0x4000, 0x3000)];
        let mut storage = [FrameRun::default(); 8];
        let mut a = FrameAllocator::new(&managed, &mut storage).unwrap();
        let mut model = SMALL;
        let mut digits = sequence;
        while digits != 0 {
            let step = digits % STEPS;
            digits /= STEPS;
            if step < 3 {
                let Ok(run) = a.allocate(FrameRequest::contiguous(step + 1)) else { continue };
                assert!(frames(&mut model, run).iter().all(|frame| *frame == Frame::Free));
                frames(&mut model, run).fill(Frame::Taken);
            } else {
                let (first, count) = if step < 9 { (step - 2, 1) } else { (step - 8, 2) };
                let released = run(first * PAGE_SIZE, count * PAGE_SIZE);
                let taken = frames(&mut model, released).iter().all(|frame| *frame == Frame::Taken);
                assert_eq!(a.release(released).is_ok(), taken, "{released:?} in {model:?}");
                if taken {
                    frames(&mut model, released).fill(Frame::Free);
                }
            }
            let free = model.iter().filter(|frame| **frame == Frame::Free).count();
            assert_eq!(a.free_frames(), free as u64);
        }
    }

    /// Three requests, six releases of one frame, five of two.
    const STEPS: u64 = 14;
    /// Steps of a sequence; an interpreter takes too long for many.
    const LENGTH: u32 = if cfg!(miri) { 2 } else { 5 };

    #[test]
    fn every_short_sequence_keeps_track_of_every_frame() {
        (0..STEPS.pow(LENGTH)).for_each(play);
    }

    proptest! {
        /// Runs never overlap, stay inside, are aligned, and all come back.
        #[test]
        fn allocations_are_disjoint_and_reversible(
            steps in proptest::collection::vec((1u64..600, 0u32..10, any::<bool>(), any::<usize>()), 1..200),
        ) {
            let managed = [run(0x10_0000, 0x30_0000), run(0x80_0000, 0x100_0000)];
            let mut a = allocator(&managed, 256);
            let total = a.free_frames();
            let mut live: Vec<FrameRun> = Vec::new();
            for (frames, order, release, pick) in steps {
                if release && !live.is_empty() {
                    a.release(live.swap_remove(pick % live.len())).unwrap();
                } else {
                    let alignment = PAGE_SIZE << order;
                    let request = FrameRequest { alignment, ..FrameRequest::contiguous(frames) };
                    if let Ok(new) = a.allocate(request) {
                        prop_assert!(new.start.0.is_multiple_of(alignment));
                        prop_assert!(managed.iter().any(|m| m.start <= new.start && new.end() <= m.end()));
                        prop_assert!(live.iter().all(|l| l.end() <= new.start.0 || new.end() <= l.start.0));
                        live.push(new);
                    }
                }
                let used: u64 = live.iter().map(|l| l.frames).sum();
                prop_assert_eq!(a.free_frames() + used, total);
                prop_assert_eq!(a.extents().iter().map(|e| e.frames).sum::<u64>(), a.free_frames());
                prop_assert!(a.extents().windows(2).all(|w| w[0].end() < w[1].start.0));
            }
            for run in live {
                a.release(run).unwrap();
            }
            prop_assert_eq!(a.extents(), &managed[..]);
        }
    }
}
