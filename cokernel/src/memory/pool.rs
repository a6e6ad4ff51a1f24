// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's frame allocator.

use alloc::{boxed::Box, vec, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use super::{
    frames::{FrameAllocator, FrameError, FrameRequest, FrameRun},
    heap, phys_to_virt,
};
use crate::{address::PAGE_SIZE, irq_lock::IrqLock};

/// Free extents that the boot-time storage holds.
const INITIAL_EXTENTS: usize = 1024;

static FRAMES: IrqLock<Option<FrameAllocator<'static>>> = IrqLock::new(None);
/// Frames that the heap and the allocator's own storage occupy.
static OWN_FRAMES: AtomicU64 = AtomicU64::new(0);

/// Memory that is in use, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryUsage {
    /// Frames that [`allocate_frames`] hands out.
    pub total_frames: u64,
    /// Frames that are neither handed out nor used by the heap.
    pub free_frames: u64,
    /// Frames that the heap occupies, live objects or not.
    pub heap_frames: u64,
    /// Bytes in live heap objects.
    pub heap_bytes: u64,
}

pub(crate) fn init(runs: Vec<FrameRun>) -> Result<(), FrameError> {
    let storage = vec![FrameRun::default(); INITIAL_EXTENTS.max(runs.len() * 2)];
    let allocator = FrameAllocator::new(runs.leak(), Box::leak(storage.into_boxed_slice()))?;
    *FRAMES.lock() = Some(allocator);
    Ok(())
}

/// Takes contiguous page frames. Their content is undefined.
///
/// # Errors
/// [`FrameError::OutOfMemory`] or [`FrameError::InvalidRequest`]; nothing is allocated then.
pub fn allocate_frames(request: FrameRequest) -> Result<FrameRun, FrameError> {
    enlarge_storage();
    let first = with_frames(|frames| frames.allocate(request));
    if first != Err(FrameError::OutOfMemory) {
        return first;
    }
    heap::trim();
    with_frames(|frames| frames.allocate(request))
}

/// Gives page frames back.
///
/// # Errors
/// [`FrameError::NotAllocated`] if the run is not memory that was handed out; nothing is
/// changed then.
pub fn release_frames(run: FrameRun) -> Result<(), FrameError> {
    enlarge_storage();
    with_frames(|frames| frames.release(run))
}

/// Counts memory, after empty heap chunks have been returned. `free_frames + heap_frames`
/// does not depend on how much the heap has grown.
pub fn usage() -> MemoryUsage {
    heap::trim();
    let guard = FRAMES.lock();
    let (total, free) = guard.as_ref().map_or((0, 0), |f| (f.total_frames(), f.free_frames()));
    MemoryUsage {
        total_frames: total,
        free_frames: free,
        heap_frames: OWN_FRAMES.load(Ordering::Relaxed),
        heap_bytes: heap::heap_bytes(),
    }
}

fn with_frames<R>(
    operation: impl FnOnce(&mut FrameAllocator<'static>) -> Result<R, FrameError>,
) -> Result<R, FrameError> {
    FRAMES.lock().as_mut().map_or(Err(FrameError::OutOfMemory), operation)
}

/// Doubles the storage of the list of extents if it is nearly full. The storage it outgrew
/// is lost: it is small, and this happens a few times at most.
fn enlarge_storage() {
    let mut guard = FRAMES.lock();
    let Some(frames) = guard.as_mut().filter(|frames| frames.is_storage_low()) else { return };
    let capacity = frames.storage_capacity() * 2;
    let bytes = (capacity * size_of::<FrameRun>()) as u64;
    // Page alignment: the run is cut from the edge of an extent, which adds none to the list.
    let request = FrameRequest::contiguous(bytes.div_ceil(PAGE_SIZE));
    let Ok(run) = frames.allocate(request) else { return };
    let storage = phys_to_virt(run.start).cast::<FrameRun>();
    OWN_FRAMES.fetch_add(run.frames, Ordering::Relaxed);
    // SAFETY: the frames were just allocated for this, are mapped and never released; zeros,
    // written here, are valid for `FrameRun`.
    let storage = unsafe {
        storage.write_bytes(0, capacity);
        core::slice::from_raw_parts_mut(storage.as_ptr(), capacity)
    };
    let adopted = frames.adopt_storage(storage);
    debug_assert!(adopted.is_ok());
}

/// Allocates for the co-kernel itself.
pub(super) fn allocate_own(request: FrameRequest) -> Option<FrameRun> {
    enlarge_storage();
    let run = with_frames(|frames| frames.allocate(request)).ok()?;
    OWN_FRAMES.fetch_add(run.frames, Ordering::Relaxed);
    Some(run)
}

/// Releases what [`allocate_own`] returned.
pub(super) fn release_own(run: FrameRun) {
    if let Err(error) = release_frames(run) {
        log::error!("heap memory at {} could not be released: {error}", run.start);
        return;
    }
    OWN_FRAMES.fetch_sub(run.frames, Ordering::Relaxed);
}
