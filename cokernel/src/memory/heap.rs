// SPDX-License-Identifier: MIT OR Apache-2.0
//! The heap: `talc` on chunks of page frames, large objects directly on frames.

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use talc::{ErrOnOom, Span, Talc};

use super::{frames::FrameRequest, frames::FrameRun, phys_to_virt, pool, virt_to_phys};
use crate::{PhysAddr, address::PAGE_SIZE, irq_lock::IrqLock};

/// From this size on, an object gets page frames of its own.
const LARGE_OBJECT: usize = 256 << 10;
/// What the heap takes from the frame allocator at once.
const CHUNK_BYTES: u64 = 1 << 20;
/// Chunks that can be given back; more are used, but kept.
const MAX_CHUNKS: usize = 256;
/// Heap until the frame allocator works, and base of the allocator's own records.
const BOOT_HEAP_BYTES: usize = 256 << 10;

struct Heap {
    talc: Talc<ErrOnOom>,
    /// Chunks that were claimed, as talc knows them and as frames.
    chunks: [Option<(Span, FrameRun)>; MAX_CHUNKS],
}

// SAFETY: the spans are plain memory that any CPU may use.
unsafe impl Send for Heap {}

struct KernelHeap {
    heap: IrqLock<Heap>,
    /// Bytes requested by live objects.
    live: AtomicU64,
}

#[global_allocator]
static HEAP: KernelHeap = KernelHeap {
    heap: IrqLock::new(Heap { talc: Talc::new(ErrOnOom), chunks: [None; MAX_CHUNKS] }),
    live: AtomicU64::new(0),
};

static mut BOOT_HEAP: [u64; BOOT_HEAP_BYTES / 8] = [0; BOOT_HEAP_BYTES / 8];

/// Gives the heap its first memory.
///
/// # Safety
/// Called once, before the first allocation.
pub(crate) unsafe fn add_boot_memory() {
    let span = Span::from_base_size((&raw mut BOOT_HEAP).cast(), BOOT_HEAP_BYTES);
    // SAFETY: the memory is used for nothing else and was never claimed.
    let claimed = unsafe { HEAP.heap.lock().talc.claim(span) };
    debug_assert!(claimed.is_ok());
}

/// Bytes in live heap objects: exactly the sum of the sizes that were asked for.
pub fn heap_bytes() -> u64 {
    HEAP.live.load(Ordering::Relaxed)
}

/// Returns chunks without live objects to the frame allocator.
pub(super) fn trim() {
    for index in 0..MAX_CHUNKS {
        if let Some(frames) = HEAP.heap.lock().take_if_empty(index) {
            pool::release_own(frames);
        }
    }
}

impl Heap {
    fn take_if_empty(&mut self, index: usize) -> Option<FrameRun> {
        let (span, frames) = (*self.chunks.get(index)?)?;
        // SAFETY: `span` is what `claim` returned and was not truncated since.
        let empty = unsafe { self.talc.get_allocated_span(span) }.is_empty();
        if !empty {
            return None;
        }
        // SAFETY: as above; no object lies in the span.
        let rest = unsafe { self.talc.truncate(span, Span::empty()) };
        debug_assert!(rest.is_empty());
        self.chunks[index] = None;
        Some(frames)
    }
}

/// Lets the heap grow by a chunk that can hold an object of `layout`.
fn grow(layout: Layout) -> bool {
    let needed = (layout.size() as u64).saturating_add(layout.align() as u64) + PAGE_SIZE;
    let frames = needed.max(CHUNK_BYTES).div_ceil(PAGE_SIZE);
    let Some(run) = pool::allocate_own(FrameRequest::contiguous(frames)) else {
        return false;
    };
    let base = phys_to_virt(run.start).as_ptr();
    let memory = Span::from_base_size(base, (run.frames * PAGE_SIZE) as usize);
    let mut heap = HEAP.heap.lock();
    // SAFETY: the frames were just allocated for the heap alone, and are mapped.
    match unsafe { heap.talc.claim(memory) } {
        Ok(span) => {
            if let Some(slot) = heap.chunks.iter_mut().find(|slot| slot.is_none()) {
                *slot = Some((span, run));
            }
            true
        }
        Err(()) => {
            drop(heap);
            pool::release_own(run);
            false
        }
    }
}

fn allocate_large(layout: Layout) -> Option<NonNull<u8>> {
    let request = FrameRequest {
        alignment: (layout.align() as u64).max(PAGE_SIZE),
        ..FrameRequest::contiguous((layout.size() as u64).div_ceil(PAGE_SIZE))
    };
    Some(phys_to_virt(pool::allocate_own(request)?.start))
}

// SAFETY: memory comes from talc or is a run of frames of its own; which of the two depends on
// the layout's size alone, so that `dealloc` makes the same choice as `alloc`.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let object = if layout.size() >= LARGE_OBJECT {
            allocate_large(layout)
        } else {
            loop {
                // SAFETY: the layout is not of size zero, by the trait's contract.
                match unsafe { self.heap.lock().talc.malloc(layout) } {
                    Ok(object) => break Some(object),
                    Err(()) if grow(layout) => {}
                    Err(()) => break None,
                }
            }
        };
        let Some(object) = object else { return core::ptr::null_mut() };
        self.live.fetch_add(layout.size() as u64, Ordering::Relaxed);
        object.as_ptr()
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let Some(object) = NonNull::new(object) else { return };
        if layout.size() >= LARGE_OBJECT {
            pool::release_own(FrameRun {
                start: virt_to_phys(object.as_ptr() as u64).unwrap_or(PhysAddr(0)),
                frames: (layout.size() as u64).div_ceil(PAGE_SIZE),
            });
        } else {
            // SAFETY: the object came from `malloc` with this layout.
            unsafe { self.heap.lock().talc.free(object, layout) };
        }
        self.live.fetch_sub(layout.size() as u64, Ordering::Relaxed);
    }
}
