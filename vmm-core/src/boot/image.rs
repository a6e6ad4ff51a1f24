// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading fields of a file within its bounds, and writing its parts to guest memory.

use super::BootError;
use crate::{GuestPhysAddr, PAGE_SIZE, memory::GuestMemory};

/// `count` bytes of `image` from `offset` on; `what` names them in the error.
pub(super) fn bytes_at<'a>(
    image: &'a [u8],
    offset: usize,
    count: usize,
    what: &'static str,
) -> Result<&'a [u8], BootError> {
    let end = offset.saturating_add(count);
    image.get(offset..end).ok_or(BootError::Truncated {
        what,
        needed: end as u64,
        present: image.len() as u64,
    })
}

/// A little-endian number of up to eight bytes.
pub(super) fn number_at(
    image: &[u8],
    offset: usize,
    bytes: usize,
    what: &'static str,
) -> Result<u64, BootError> {
    let field = bytes_at(image, offset, bytes.min(8), what)?;
    Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Writes `bytes`, if there are any: the place of none may be the very end of memory.
pub(super) fn write(memory: &GuestMemory, at: u64, bytes: &[u8]) -> Result<(), BootError> {
    if !bytes.is_empty() {
        memory.write(GuestPhysAddr::new(at), bytes)?;
    }
    Ok(())
}

/// Writes zeroes.
pub(super) fn write_zeroes(memory: &GuestMemory, at: u64, bytes: u64) -> Result<(), BootError> {
    const ZEROES: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
    let mut done = 0;
    while done < bytes {
        let step = (bytes - done).min(PAGE_SIZE);
        memory.write(GuestPhysAddr::new(at + done), &ZEROES[..step as usize])?;
        done += step;
    }
    Ok(())
}
