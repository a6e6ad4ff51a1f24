// SPDX-License-Identifier: MIT OR Apache-2.0
//! Damage to the co-kernel, which its watch has to notice.

use core::arch::asm;

use cokernel::{PhysAddr, memory};

/// A constant for nobody but [`image`].
static CONSTANT: [u8; 8] = *b"constant";

/// A guest-physical page of no device that is mapped to see it noticed; nobody touches it.
const NO_DEVICE: PhysAddr = PhysAddr(0xFEB0_0000);

/// Changes a constant of the image, past its protection.
pub fn image() {
    const WRITE_PROTECT: u64 = 1 << 16;
    // SAFETY: nothing reads the constant but the sum over the image. Interrupts are off while
    // protection is, which is put back as it was.
    unsafe {
        asm!(
            "pushfq",
            "cli",
            "mov {old}, cr0",
            "mov {new}, {old}",
            "and {new}, {mask}",
            "mov cr0, {new}",
            "not byte ptr [{at}]",
            "mov cr0, {old}",
            "popfq",
            old = out(reg) _,
            new = out(reg) _,
            mask = in(reg) !WRITE_PROTECT,
            at = in(reg) &raw const CONSTANT,
        );
    }
}

/// Maps a page more.
pub fn address_space() {
    if let Err(error) = memory::map_device(NO_DEVICE, cokernel::PAGE_SIZE) {
        log::error!("the page was not mapped: {error:?}");
    }
}
