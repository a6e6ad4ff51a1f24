// SPDX-License-Identifier: MIT OR Apache-2.0
//! A window of 4 KiB pages whose entries the tests choose.

use core::arch::asm;

use super::cell::Fixed;

pub const PRESENT: u64 = 1 << 0;
pub const WRITABLE: u64 = 1 << 1;
pub const USER: u64 = 1 << 2;
pub const NO_EXECUTE: u64 = 1 << 63;

/// First linear address of the window: the second slot of the top-level table. Tables above the
/// last level allow everything, so the last entry decides.
pub const WINDOW: u64 = 0x80_0000_0000;
/// Pages in the window.
pub const WINDOW_PAGES: usize = 512;
pub const PAGE: u64 = 0x1000;

unsafe extern "C" {
    static mut window_pt: [u64; WINDOW_PAGES];
    static mut window_pd: [u64; 512];
    static mut boot_pd: [u64; 2048];
}

/// Linear address of a page of the window.
pub const fn page(index: usize) -> u64 {
    WINDOW + index as u64 * PAGE
}

/// Sets the page-table entry of a page of the window.
pub fn map(index: usize, entry: u64) {
    let index = index % WINDOW_PAGES;
    // SAFETY: within the table. Nothing but the tests' own accesses uses the window.
    unsafe {
        (&raw mut window_pt).cast::<u64>().add(index).write_volatile(entry);
        asm!("invlpg [{}]", in(reg) page(index), options(nostack));
    }
}

/// The page-table entry of a page of the window.
pub fn entry(index: usize) -> u64 {
    // SAFETY: within the table.
    unsafe { (&raw const window_pt).cast::<u64>().add(index % WINDOW_PAGES).read_volatile() }
}

/// Sets an entry of the page directory behind the window; slot 0 is the table of the pages.
pub fn set_directory_entry(index: usize, entry: u64) {
    if (1..512).contains(&index) {
        // SAFETY: within the table, and not the slot that the pages hang on.
        unsafe {
            (&raw mut window_pd).cast::<u64>().add(index).write_volatile(entry);
            asm!("invlpg [{}]", in(reg) WINDOW + ((index as u64) << 21), options(nostack));
        }
    }
}

/// Linear address of two neighbouring large pages that the tests map anew, near enough to the
/// program for addresses relative to RIP.
pub const NEAR: u64 = 0x4000_0000;
/// Size of a large page.
pub const LARGE: u64 = 0x20_0000;
const LARGE_FLAG: u64 = 1 << 7;

/// Maps one of the two large pages at [`NEAR`]; `entry` is its frame with flags.
pub fn map_near(second: bool, entry: u64) {
    let index = (NEAR / LARGE) as usize + usize::from(second);
    // SAFETY: within the tables of the first 4 GiB, at a place where no memory is.
    unsafe {
        (&raw mut boot_pd).cast::<u64>().add(index).write_volatile(entry | LARGE_FLAG);
        asm!("invlpg [{}]", in(reg) index as u64 * LARGE, options(nostack));
    }
}

/// Two pages of memory for the tests.
pub static SCRATCH: Fixed<[u8; 8192]> = Fixed::new([0; 8192]);

/// A guest-physical page that belongs to no memory and no device.
pub const UNOWNED: u64 = 0xFEB0_0000;

/// What such pages read as: all ones, as on a machine, but zero on bare QEMU.
pub fn nothing() -> u64 {
    if super::cpu::is_bare_tcg() { 0 } else { u64::MAX }
}
