// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of an image that have places of their own in memory.

use alloc::vec::Vec;

use super::{
    BootError,
    image::{write, write_zeroes},
    placement::{FOUR_GIB, Placement},
};
use crate::memory::GuestMemory;

/// A part of the file with a place in memory.
pub(super) struct LoadSegment<'a> {
    /// Physical address.
    pub(super) start: u64,
    /// Address at which the image's own code knows it.
    pub(super) linked_at: u64,
    /// What the file holds of it.
    pub(super) content: &'a [u8],
    /// Its length in memory, not less than the content's; the rest is zero.
    pub(super) bytes: u64,
}

/// All parts of an image, at least one.
pub(super) struct Segments<'a>(Vec<LoadSegment<'a>>);

impl<'a> Segments<'a> {
    /// An image of these parts.
    pub(super) fn new(segments: Vec<LoadSegment<'a>>) -> Result<Self, BootError> {
        if segments.is_empty() {
            return Err(BootError::Malformed("it has nothing to load"));
        }
        // So that what lies on top of each other is not cleared over and over.
        let bytes = segments.iter().try_fold(0_u64, |sum, next| sum.checked_add(next.bytes));
        if bytes.is_none_or(|bytes| bytes > FOUR_GIB) {
            return Err(BootError::Malformed(
                "its segments are larger than the memory for kernels",
            ));
        }
        Ok(Self(segments))
    }

    /// First address, and length up to the end of the last segment.
    pub(super) fn extent(&self) -> Result<(u64, u64), BootError> {
        let start = self.0.iter().map(|segment| segment.start).min().unwrap_or(0);
        let ends = self.0.iter().map(|segment| segment.start.checked_add(segment.bytes));
        let end = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max());
        end.map(|end| (start, end - start))
            .ok_or(BootError::Malformed("a segment wraps around the end of memory"))
    }

    /// The physical address of what the image's own code knows at `address`.
    pub(super) fn physical(&self, address: u64) -> Option<u64> {
        self.0.iter().find_map(|segment| {
            let offset = address.checked_sub(segment.linked_at)?;
            (offset < segment.bytes).then(|| segment.start.checked_add(offset))?
        })
    }

    /// Takes the memory that the image needs where it was linked to lie.
    pub(super) fn take(&self, placement: &mut Placement) -> Result<(), BootError> {
        let (start, bytes) = self.extent()?;
        if start.saturating_add(bytes) > FOUR_GIB || !placement.take(start, bytes) {
            let memory_end = placement.end_below(FOUR_GIB);
            return Err(BootError::KernelDoesNotFit { start, bytes, memory_end });
        }
        Ok(())
    }

    /// Writes all parts, `base` bytes above where they were linked to lie. The memory has to be
    /// taken already.
    pub(super) fn write(&self, memory: &GuestMemory, base: u64) -> Result<(), BootError> {
        for segment in &self.0 {
            let start = segment.start.wrapping_add(base);
            write(memory, start, segment.content)?;
            let content = segment.content.len() as u64;
            write_zeroes(memory, start.wrapping_add(content), segment.bytes - content)?;
        }
        Ok(())
    }
}
