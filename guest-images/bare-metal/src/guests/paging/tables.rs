// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables of a shape, what the walker should make of them, and the memory they lead to.

use core::ptr;

use vmm_core::GuestPhysAddr;
use vmm_core::paging::walk::{BusError, PhysicalMemory};

use super::Mode;
use crate::rt::cell::Fixed;
use crate::rt::paging::{PAGE, PRESENT, USER, WRITABLE};
use crate::rt::{cpu, paging};

/// Tables of a shape; the first is the top one.
pub const COUNT: usize = 6;
/// Entries in use, at most, in units of four bytes.
pub const MAX_WATCHED: usize = 96;

pub const LARGE: u64 = 1 << 7;

/// Memory that pages of a shape map: [`fill`] writes lines of 16 bytes, each an executable
/// `MOV EAX, line; INT 0x81`, and the line's address at offset 8. Taken for entries of tables they
/// are not present.
pub const DATA: u64 = 32 << 20;
pub const DATA_SIZE: u64 = 4 << 20;
/// End of the memory that all machines of this guest have.
const MEMORY_END: u64 = 64 << 20;

type Tables = [[u64; 512]; COUNT];

/// What the CPU walks.
static TABLES: Fixed<Tables> = Fixed::new([[0; 512]; COUNT]);
/// What the walker walks, by the same addresses.
static MODEL: Fixed<Tables> = Fixed::new([[0; 512]; COUNT]);

static LOW_POINTERS: Fixed<[u64; 512]> = Fixed::new([0; 512]);
static LOW_DIRECTORY: Fixed<[u64; 512]> = Fixed::new([0; 512]);
static LOW_TABLES: Fixed<[[u64; 512]; 2]> = Fixed::new([[0; 512]; 2]);
static LOW_LEGACY: Fixed<[u32; 1024]> = Fixed::new([0; 1024]);
/// Top tables that map the low memory only, for the time until the first access.
static PLAIN: Fixed<[u64; 512]> = Fixed::new([0; 512]);

/// Maps the first 4 MiB, where this program is, for the kernel alone, but for the page of the
/// code that users execute; in long mode and PAE paging also the rest of memory.
pub fn map_low(user_code: u64) {
    let rights = |frame: u64| PRESENT | WRITABLE | if frame == user_code { USER } else { 0 };
    let tables = LOW_TABLES.get().cast::<u64>();
    let directory = LOW_DIRECTORY.get().cast::<u64>();
    // SAFETY: within this module's own tables, which nothing uses yet.
    unsafe {
        for index in 0..1024 {
            let frame = index as u64 * PAGE;
            tables.add(index).write(frame | rights(frame));
            LOW_LEGACY.get().cast::<u32>().add(index).write((frame | rights(frame)) as u32);
        }
        for index in 0..32 {
            directory.add(index).write((index as u64) << 21 | LARGE | PRESENT | WRITABLE);
        }
        let upper = PRESENT | WRITABLE | USER;
        directory.write(LOW_TABLES.address() | upper);
        directory.add(1).write((LOW_TABLES.address() + PAGE) | upper);
        LOW_POINTERS.get().cast::<u64>().write(LOW_DIRECTORY.address() | upper);
    }
}

/// The top entry that leads to the low memory.
fn low_entry(mode: Mode) -> u64 {
    match mode {
        Mode::Legacy => LOW_LEGACY.address() | PRESENT | WRITABLE | USER,
        Mode::Pae => LOW_DIRECTORY.address() | PRESENT,
        Mode::Long => LOW_POINTERS.address() | PRESENT | WRITABLE | USER,
    }
}

/// Fills the memory that pages map.
pub fn fill() {
    for line in DATA / 16..(DATA + DATA_SIZE) / 16 {
        let low = 0xB8 | line << 8 | 0x81CD << 40;
        // SAFETY: memory that nothing else uses, mapped where it is.
        unsafe {
            ((line * 16) as *mut u64).write_volatile(low);
            ((line * 16 + 8) as *mut u64).write_volatile(line * 16);
        }
    }
}

/// Address of a table.
pub fn address(table: usize) -> u64 {
    TABLES.address() + table as u64 * PAGE
}

/// Address of a top table that maps the low memory only.
pub fn plain() -> u64 {
    PLAIN.address()
}

/// Empties all tables; the first entry of the top ones leads to the low memory.
pub fn clear(mode: Mode) {
    // SAFETY: no CPU walks them now.
    unsafe {
        TABLES.get().write_bytes(0, 1);
        MODEL.get().write_bytes(0, 1);
        TABLES.get().cast::<u64>().write(low_entry(mode));
        MODEL.get().cast::<u64>().write(low_entry(mode));
        PLAIN.get().cast::<u64>().write(low_entry(mode));
    }
}

/// Sets an entry for the CPU and for the walker.
pub fn set(mode: Mode, table: usize, slot: usize, value: u64) {
    for tables in [TABLES.get(), MODEL.get()] {
        let at = tables.cast::<u8>().wrapping_add(table * 0x1000 + slot * mode.entry_size());
        // SAFETY: table and slot are in range; no CPU walks them now.
        unsafe {
            match mode {
                Mode::Legacy => at.cast::<u32>().write_volatile(value as u32),
                Mode::Pae | Mode::Long => at.cast::<u64>().write_volatile(value),
            }
        }
    }
}

/// What a guest-physical address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a table; the offset.
    Table(u64),
    /// In the memory filled for it.
    Data,
    /// Some other memory: this program's.
    Other,
    /// Nothing.
    Nothing,
}

pub fn place(address: u64) -> Place {
    let offset = address.wrapping_sub(TABLES.address());
    if offset < size_of::<Tables>() as u64 {
        Place::Table(offset)
    } else if (DATA..DATA + DATA_SIZE).contains(&address) {
        Place::Data
    } else if address < MEMORY_END {
        Place::Other
    } else {
        Place::Nothing
    }
}

/// Four bytes of the tables as the walker left them, by their offset.
pub fn model(offset: u64) -> u32 {
    let offset = (offset & !3).min(size_of::<Tables>() as u64 - 4);
    // SAFETY: within the tables.
    unsafe { MODEL.get().cast::<u8>().add(offset as usize).cast::<u32>().read_volatile() }
}

/// Four bytes that a read of guest-physical memory gives, if it reaches what does not change.
pub fn content(address: u64) -> Option<u32> {
    match place(address) {
        Place::Table(offset) => Some(model(offset)),
        // SAFETY: memory that only `fill` writes.
        Place::Data => Some(unsafe { (address as *const u32).read_unaligned() }),
        Place::Nothing => Some(paging::nothing() as u32),
        Place::Other => None,
    }
}

/// Memory as the walker sees it. Marks outside the tables are not kept.
pub struct Model {
    /// Keeps no marks at all.
    pub dry: bool,
}

impl Model {
    fn read(&self, address: GuestPhysAddr, bytes: usize) -> Result<u64, BusError> {
        let address = address.as_u64();
        let from = match place(address) {
            Place::Table(offset) => MODEL.get().cast::<u8>().wrapping_add(offset as usize),
            Place::Data | Place::Other => address as *mut u8,
            // Bare QEMU reads zeroes there.
            Place::Nothing if cpu::is_bare_tcg() => return Ok(0),
            Place::Nothing => return Err(BusError),
        };
        let mut value = [0; 8];
        // SAFETY: an aligned entry in memory that is mapped where it is.
        unsafe { ptr::copy_nonoverlapping(from, value.as_mut_ptr(), bytes.min(8)) };
        Ok(u64::from_le_bytes(value))
    }

    fn exchange(
        &self,
        address: GuestPhysAddr,
        [old, new]: [u64; 2],
        bytes: usize,
    ) -> Result<bool, BusError> {
        let found = self.read(address, bytes)?;
        if let (Place::Table(offset), false) = (place(address.as_u64()), self.dry)
            && found == old
        {
            let to = MODEL.get().cast::<u8>().wrapping_add(offset as usize);
            // SAFETY: an aligned entry within the tables, which nobody else changes.
            unsafe { ptr::copy_nonoverlapping(new.to_le_bytes().as_ptr(), to, bytes.min(8)) };
        }
        Ok(found == old)
    }
}

impl PhysicalMemory for Model {
    fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError> {
        self.read(address, 4).map(|value| value as u32)
    }

    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError> {
        self.read(address, 8)
    }

    fn compare_exchange_u32(
        &self,
        address: GuestPhysAddr,
        old: u32,
        new: u32,
    ) -> Result<bool, BusError> {
        self.exchange(address, [old.into(), new.into()], 4)
    }

    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        old: u64,
        new: u64,
    ) -> Result<bool, BusError> {
        self.exchange(address, [old, new], 8)
    }
}
