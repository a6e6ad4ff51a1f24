// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the loader said, in the words of its boot protocol.

use core::ptr;

use super::cell::Fixed;

/// In EAX after a multiboot loader (Multiboot 0.6.96, 3.2).
pub const MULTIBOOT: u64 = 0x2BAD_B002;
/// In EAX after a Multiboot2 loader (Multiboot2 2.0, 3.2).
pub const MULTIBOOT2: u64 = 0x36D7_6289;
/// In EAX after the firmware guest's own start-up code.
pub const FIRMWARE: u64 = 0x4D57_4346;

/// Where the loader's information is, and the magic number that says what it is.
#[derive(Clone, Copy)]
pub struct Handover {
    pub address: u64,
    pub magic: u64,
}

static KEPT: Fixed<Handover> = Fixed::new(Handover { address: 0, magic: 0 });

/// Notes what was in EBX and EAX at the entry point.
pub fn keep(address: u64, magic: u64) {
    // SAFETY: called once, before anything else runs.
    unsafe { *KEPT.get() = Handover { address, magic } }
}

pub fn get() -> Handover {
    // SAFETY: written only by `keep`, before anything else runs.
    unsafe { *KEPT.get() }
}

/// A number of the loader's or of firmware's, wherever it lies in the first 4 GiB.
pub fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the first 4 GiB are identity-mapped, and what is read is plain numbers. Where no
    // memory is, all ones are read.
    unsafe { ptr::read_unaligned(address as *const T) }
}

/// The text at `address`, which ends with a zero byte; at most 200 bytes of it.
pub fn text(address: u64) -> &'static [u8] {
    const MOST: u64 = 200;
    let length = (0..MOST).find(|at| read::<u8>(address + at) == 0).unwrap_or(MOST);
    // SAFETY: as in `read`; nobody changes what the loader wrote.
    unsafe { core::slice::from_raw_parts(address as *const u8, length as usize) }
}

/// The tags of the Multiboot2 information at `address`: type, address of the content, and its
/// length. At most 64, so that a wrong one does not lead astray for ever.
pub fn tags(address: u64) -> impl Iterator<Item = (u32, u64, u64)> {
    let mut next = address + 8;
    core::iter::from_fn(move || {
        let (kind, size) = (read::<u32>(next), u64::from(read::<u32>(next + 4)));
        let content = next + 8;
        next += size.next_multiple_of(8).max(8);
        (kind != 0).then(|| (kind, content, size.saturating_sub(8)))
    })
    .take(64)
}

/// Where the command line is, after a multiboot loader of either version; zero if there is none.
pub fn multiboot_command_line() -> u64 {
    const HAS_COMMAND_LINE: u32 = 1 << 2;
    let Handover { address, magic } = get();
    match magic {
        MULTIBOOT if read::<u32>(address) & HAS_COMMAND_LINE != 0 => {
            read::<u32>(address + 16).into()
        }
        MULTIBOOT2 => tags(address).find(|tag| tag.0 == 1).map_or(0, |tag| tag.1),
        _ => 0,
    }
}
