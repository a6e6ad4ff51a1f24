// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware: an image that ends at 4 GiB, where the CPU starts after reset.

use alloc::vec;

use host_iface::{Host, PageRequest};

use super::{BootError, image::write, placement::FOUR_GIB};
use crate::{
    GuestPhysAddr, PAGE_SIZE,
    memory::{GuestMemory, OwnedPages, SYSTEM_ROM, SYSTEM_ROM_END},
};

/// Largest firmware image: what lies between the local APICs and 4 GiB.
pub const MAX_FIRMWARE: u64 = 16 << 20;

/// The open bus below an image that is shorter than the ROM's second place.
const OPEN_BUS: u8 = 0xFF;

/// Maps a firmware image as a PC does: a ROM whose last byte is the last one below 4 GiB, and
/// the same again below 1 MiB, of which the last 128 KiB show there.
///
/// `memory` must have the region at [`SYSTEM_ROM`], as [`allocate`](crate::memory::allocate)
/// makes it, which becomes a ROM. The vCPU then starts in the state after reset.
///
/// # Errors
/// [`BootError::FirmwareSize`] unless the image has whole pages, at least one, and at most
/// [`MAX_FIRMWARE`]; [`BootError::Host`] when the host has no memory for it.
pub fn map_firmware(
    host: &'static dyn Host,
    memory: &mut GuestMemory,
    image: &[u8],
) -> Result<(), BootError> {
    let bytes = image.len() as u64;
    if bytes == 0 || bytes > MAX_FIRMWARE || !bytes.is_multiple_of(PAGE_SIZE) {
        return Err(BootError::FirmwareSize { bytes });
    }
    let pages = OwnedPages::allocate(host, PageRequest::contiguous(bytes / PAGE_SIZE))?;
    let start = GuestPhysAddr::new(FOUR_GIB - bytes);
    memory.add(start, pages)?;
    memory.write(start, image)?;
    memory.make_rom(start)?;

    let room = SYSTEM_ROM_END.as_u64() - SYSTEM_ROM.as_u64();
    let shown = &image[bytes.saturating_sub(room) as usize..];
    let open = room - shown.len() as u64;
    memory.write(SYSTEM_ROM, &vec![OPEN_BUS; open as usize])?;
    write(memory, SYSTEM_ROM.as_u64() + open, shown)?;
    memory.make_rom(SYSTEM_ROM)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;
    use crate::memory::{MIN_MEMORY, MemoryLayout, RegionAccess, allocate};

    fn memory() -> (&'static MockHost, GuestMemory) {
        let host = MockHost::leak(1);
        (host, allocate(host, MemoryLayout::of(MIN_MEMORY)).unwrap())
    }

    fn image(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at / 0x400) as u8).collect()
    }

    fn read(memory: &GuestMemory, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        memory.read(GuestPhysAddr::new(at), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn ends_at_four_gib_and_at_one_mib() {
        for bytes in [0x1000, 0x1_0000, 0x2_0000, 0x4_0000] {
            let (host, mut memory) = memory();
            let image = image(bytes);
            map_firmware(host, &mut memory, &image).unwrap();
            assert_eq!(read(&memory, (1 << 32) - bytes as u64, bytes), image);
            let shown = bytes.min(0x2_0000);
            let below = read(&memory, 0x10_0000 - shown as u64, shown);
            assert_eq!(below, image[bytes - shown..], "{bytes:#x}");
            let open = read(&memory, 0xE_0000, 0x2_0000 - shown);
            assert!(open.iter().all(|&byte| byte == 0xFF));
            for region in memory.regions() {
                let start = region.start().as_u64();
                let is_rom = start == 0xE_0000 || start >= 0xFF00_0000;
                assert_eq!(region.access() == RegionAccess::ReadOnly, is_rom, "{start:#x}");
            }
        }
    }

    #[test]
    fn an_image_of_another_size_is_refused() {
        for bytes in [0, 1, 0xFFF, 0x1001, MAX_FIRMWARE as usize + 0x1000] {
            let (host, mut memory) = memory();
            let result = map_firmware(host, &mut memory, &image(bytes));
            assert_eq!(result, Err(BootError::FirmwareSize { bytes: bytes as u64 }));
            assert!(!memory.contains(GuestPhysAddr::new((1 << 32) - 1)));
        }
        let (host, mut memory) = memory();
        host.fail_allocation_in(0);
        assert!(matches!(map_firmware(host, &mut memory, &image(0x1000)), Err(BootError::Host(_))));
    }
}
