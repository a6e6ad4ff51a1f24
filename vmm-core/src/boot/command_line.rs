// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel command line in guest memory.

use super::{
    BootError,
    placement::{LOW_DATA_END, Placement},
};
use crate::{GuestPhysAddr, memory::GuestMemory};

/// Writes `text` and a zero byte to low memory; returns the address. `limit` is the longest
/// text that the kernel accepts.
pub(super) fn place(
    memory: &GuestMemory,
    placement: &mut Placement,
    text: &str,
    limit: usize,
) -> Result<u64, BootError> {
    if text.len() > limit {
        return Err(BootError::CommandLineTooLong { bytes: text.len(), limit });
    }
    if text.bytes().any(|byte| byte == 0) {
        return Err(BootError::CommandLineZero);
    }
    let bytes = text.len() as u64 + 1;
    let at = placement
        .take_lowest(bytes, 16, 0..LOW_DATA_END)
        .ok_or(BootError::NoRoomForBootData { bytes })?;
    memory.write(GuestPhysAddr::new(at), text.as_bytes())?;
    memory.write_u8(GuestPhysAddr::new(at + bytes - 1), 0)?;
    Ok(at)
}
