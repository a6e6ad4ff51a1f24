// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical memory, the address space of the co-kernel, and the heap.

pub mod frames;
#[cfg(target_os = "none")]
mod heap;
pub mod map;
pub mod paging;
#[cfg(target_os = "none")]
mod space;
#[cfg(any(test, target_os = "none"))]
mod stack_layout;
#[cfg(target_os = "none")]
pub(crate) mod stacks;

#[cfg(target_os = "none")]
mod pool;

#[cfg(target_os = "none")]
pub use heap::heap_bytes;
#[cfg(target_os = "none")]
pub use pool::{MemoryUsage, allocate_frames, release_frames, usage};
#[cfg(target_os = "none")]
pub use space::{
    constant_words, for_each_page, image_bytes, map_device, phys_to_virt, virt_to_phys,
};

#[cfg(target_os = "none")]
pub(crate) use {
    heap::add_boot_memory,
    pool::init as init_frames,
    space::{
        BootMemory, address_space_root, image_range, init as init_address_space, map_pages,
        set_image_base, trampoline_table,
    },
};
