// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address space of the co-kernel.
//!
//! | from                    | what                                   |
//! |-------------------------|----------------------------------------|
//! | `0xFFFF_8000_0000_0000` | direct map of physical memory          |
//! | `0xFFFF_C000_0000_0000` | stacks, each behind an unmapped page   |
//! | `0xFFFF_D000_0000_0000` | device registers                       |
//! | `0xFFFF_FFFF_8000_0000` | the image                              |
//!
//! The image is not in the direct map, so that nothing executable or constant has a writable
//! alias.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use raw_cpuid::CpuId;

use super::{
    frames::FrameRequest,
    map::{self, PhysRange},
    paging::{Access, Leaf, MapError, PageTables, TableMemory},
    pool,
};
use crate::{
    PhysAddr, PhysMemory, address::PAGE_SIZE, boot::MemoryRegion, irq_lock::IrqLock, symbols,
};

const DIRECT_MAP: u64 = 0xFFFF_8000_0000_0000;
const DIRECT_MAP_BYTES: u64 = 1 << 46;
const DEVICE_WINDOW: u64 = 0xFFFF_D000_0000_0000;
const FOUR_GIB: u64 = 4 << 30;

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __boot_stack_guard: u8;
    static __symbols: u8;
}

static IMAGE_BASE: AtomicU64 = AtomicU64::new(0);
static SPACE: IrqLock<Option<PageTables<KernelTables>>> = IrqLock::new(None);
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(DEVICE_WINDOW);

/// Records where the image was loaded.
pub(crate) fn set_image_base(physical: PhysAddr) {
    IMAGE_BASE.store(physical.0, Ordering::Relaxed);
}

fn image_start() -> u64 {
    &raw const __image_start as u64
}

/// Size of the image in memory with its zeroed data and symbols, in whole pages, in bytes.
pub fn image_bytes() -> u64 {
    let symbols = &raw const __symbols as u64;
    (symbols - image_start() + symbols::embedded_bytes()).next_multiple_of(PAGE_SIZE)
}

/// Where the image is in physical memory.
pub(crate) fn image_range() -> PhysRange {
    let start = IMAGE_BASE.load(Ordering::Relaxed);
    PhysRange { start, end: start + image_bytes() }
}

/// Where the CPU finds the byte at physical `address`, which must be memory of this machine
/// outside of the image: readable, writable, write-back.
pub fn phys_to_virt(address: PhysAddr) -> NonNull<u8> {
    let virt = DIRECT_MAP.wrapping_add(address.0 & (DIRECT_MAP_BYTES - 1));
    // SAFETY: the direct map does not start at zero.
    unsafe { NonNull::new_unchecked(virt as *mut u8) }
}

/// The physical address behind an address of the direct map, the image or a mapping made
/// later; `None` if it is not mapped.
pub fn virt_to_phys(virt: u64) -> Option<PhysAddr> {
    if (DIRECT_MAP..DIRECT_MAP + DIRECT_MAP_BYTES).contains(&virt) {
        return Some(PhysAddr(virt - DIRECT_MAP));
    }
    if virt >= image_start() && virt - image_start() < image_bytes() {
        return Some(PhysAddr(virt - image_start() + IMAGE_BASE.load(Ordering::Relaxed)));
    }
    let leaf = SPACE.lock().as_ref()?.lookup(virt)?;
    Some(PhysAddr(leaf.phys.0 + (virt - leaf.virt)))
}

/// What firmware and boot loader left below 4 GiB, through the boot code's page tables or,
/// later, through the direct map.
pub(crate) struct BootMemory;

impl PhysMemory for BootMemory {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        let virt = phys_to_virt(PhysAddr(address));
        let last = virt.as_ptr() as u64 + (length as u64).saturating_sub(1);
        let mapped = |virt: u64| match SPACE.lock().as_ref() {
            Some(space) => space.lookup(virt).is_some(),
            None => end <= FOUR_GIB,
        };
        let mut pages = (virt.as_ptr() as u64 & !(PAGE_SIZE - 1)..=last).step_by(4096);
        if !pages.all(mapped) {
            return None;
        }
        // SAFETY: every page of the range is mapped; nothing writes firmware's tables, and they
        // are not handed out.
        Some(unsafe { core::slice::from_raw_parts(virt.as_ptr(), length) })
    }
}

/// Frames for page tables, reached through the direct map. Before the final tables are
/// loaded, that covers 4 GiB only.
struct KernelTables;

impl KernelTables {
    fn entry(table: PhysAddr, index: usize) -> *mut u64 {
        phys_to_virt(table).cast::<u64>().as_ptr().wrapping_add(index & 0x1FF)
    }
}

impl TableMemory for KernelTables {
    fn allocate(&mut self) -> Option<PhysAddr> {
        let request = FrameRequest { below: FOUR_GIB, ..FrameRequest::contiguous(1) };
        let frame = pool::allocate_frames(request).ok()?.start;
        // SAFETY: the frame is ours and in the direct map.
        unsafe { phys_to_virt(frame).write_bytes(0, 4096) };
        Some(frame)
    }

    fn read(&self, table: PhysAddr, index: usize) -> u64 {
        // SAFETY: `table` came from `allocate`; the index is masked.
        unsafe { Self::entry(table, index).read_volatile() }
    }

    fn write(&mut self, table: PhysAddr, index: usize, entry: u64) {
        // SAFETY: as in `read`; the tables are behind a lock.
        unsafe { Self::entry(table, index).write_volatile(entry) };
    }
}

/// Builds the final page tables and switches to them.
pub(crate) fn init(memory_map: &[MemoryRegion]) -> Result<(), MapError> {
    let gigabyte_pages = CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|features| features.has_1gib_pages());
    let mut space = PageTables::new(KernelTables, gigabyte_pages).ok_or(MapError::OutOfMemory)?;
    for range in map::direct_map_ranges(memory_map, image_range()) {
        let bytes = range.end - range.start;
        space.map(DIRECT_MAP + range.start, PhysAddr(range.start), bytes, Access::ReadWrite)?;
    }
    map_image(&mut space)?;
    let root = space.root();
    *SPACE.lock() = Some(space);
    // SAFETY: the new tables map the running code, its stack and its data as before, apart
    // from the boot code, which has done its work.
    unsafe { x86::controlregs::cr3_write(root.0) };
    Ok(())
}

fn map_image(space: &mut PageTables<KernelTables>) -> Result<(), MapError> {
    let guard = &raw const __boot_stack_guard as u64;
    let symbols = &raw const __symbols as u64;
    let sections = [
        (image_start(), &raw const __text_start as u64, Access::Read),
        (&raw const __text_start as u64, &raw const __text_end as u64, Access::ReadExecute),
        (&raw const __rodata_start as u64, &raw const __rodata_end as u64, Access::Read),
        (&raw const __data_start as u64, guard, Access::ReadWrite),
        (guard + PAGE_SIZE, &raw const __data_end as u64, Access::ReadWrite),
        (symbols, image_start() + image_bytes(), Access::Read),
    ];
    let base = IMAGE_BASE.load(Ordering::Relaxed);
    sections.into_iter().filter(|(start, end, _)| start < end).try_for_each(
        |(start, end, access)| {
            space.map(start, PhysAddr(start - image_start() + base), end - start, access)
        },
    )
}

/// The value of CR3 for all CPUs.
pub(crate) fn address_space_root() -> PhysAddr {
    SPACE.lock().as_ref().map_or(PhysAddr(0), PageTables::root)
}

/// Maps pages at a virtual address that was never mapped before, so that no CPU has to
/// forget a translation.
pub(crate) fn map_pages(
    virt: u64,
    phys: PhysAddr,
    bytes: u64,
    access: Access,
) -> Result<(), MapError> {
    SPACE.lock().as_mut().ok_or(MapError::OutOfMemory)?.map(virt, phys, bytes, access)
}

/// Maps `bytes` of device registers at physical `address`, uncached, for good.
///
/// # Errors
/// [`MapError`] if the range wraps or page tables cannot be allocated.
pub fn map_device(address: PhysAddr, bytes: u64) -> Result<NonNull<u8>, MapError> {
    let offset = address.0 & (PAGE_SIZE - 1);
    let length = bytes
        .checked_add(offset)
        .and_then(|b| b.checked_next_multiple_of(PAGE_SIZE))
        .ok_or(MapError::BadRange)?;
    let virt = NEXT_DEVICE.fetch_add(length + PAGE_SIZE, Ordering::Relaxed);
    map_pages(virt, PhysAddr(address.0 - offset), length, Access::Device)?;
    NonNull::new((virt + offset) as *mut u8).ok_or(MapError::BadRange)
}

/// Calls `visit` for every page of the address space.
pub fn for_each_page(visit: &mut dyn FnMut(Leaf)) {
    if let Some(space) = SPACE.lock().as_ref() {
        space.for_each(visit);
    }
}

/// The parts of the image that nothing changes while the co-kernel runs, in 64-bit words: code and
/// constants.
pub fn constant_words() -> impl Iterator<Item = u64> {
    let (start, end) = (image_start(), &raw const __rodata_end as u64);
    // SAFETY: from the image's first page to the end of its constants all is mapped, readable, and
    // never written; the linker script aligns both ends to pages.
    (start..end).step_by(8).map(|at| unsafe { (at as *const u64).read_volatile() })
}

/// Fills the three frames at `tables`, below 4 GiB, with page tables that equal the final ones
/// in the upper half and map the first 2 MiB one to one, executable: for CPUs that start.
pub(crate) fn trampoline_table(tables: PhysAddr) {
    let mut memory = KernelTables;
    let [pml4, pdpt, pd] = [0, 1, 2].map(|i| PhysAddr(tables.0 + i * PAGE_SIZE));
    let guard = SPACE.lock();
    for index in 0..512 {
        let upper = guard.as_ref().filter(|_| index >= 256).map_or(0, |s| s.root_entry(index));
        memory.write(pml4, index, upper);
        memory.write(pdpt, index, 0);
        memory.write(pd, index, 0);
    }
    memory.write(pml4, 0, pdpt.0 | 3);
    memory.write(pdpt, 0, pd.0 | 3);
    // Present, writable, 2 MiB.
    memory.write(pd, 0, 0x83);
}
