// SPDX-License-Identifier: MIT OR Apache-2.0
//! GDT, TSS and IDT in long mode (AMD64 APM volume 2, sections 4.8 and 12.2.5).

use core::{cell::UnsafeCell, mem::size_of};

use x86::{
    dtables::{DescriptorTablePointer, lgdt, lidt},
    segmentation::SegmentSelector,
    task::load_tr,
};

/// Selector of the code segment, the same in the boot code's GDT.
pub(crate) const CODE_SELECTOR: u16 = 8;
const TSS_SELECTOR: u16 = 16;

/// Interrupt stack table slots, numbered as in IDT entries.
#[derive(Clone, Copy)]
pub(crate) enum StackSlot {
    /// For NMIs.
    Nmi = 1,
    /// For double faults.
    DoubleFault = 2,
    /// For machine checks.
    MachineCheck = 3,
}

/// The 64-bit task state segment.
#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    stacks: [u64; 3],
    reserved1: u64,
    interrupt_stacks: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map_base: u16,
}

const _: () = assert!(size_of::<TaskState>() == 104);

/// The tables of one CPU.
pub(crate) struct Descriptors {
    gdt: UnsafeCell<[u64; 4]>,
    tss: UnsafeCell<TaskState>,
}

// SAFETY: written by `load` only, which its contract limits to one call, on the owning CPU.
unsafe impl Sync for Descriptors {}

impl Descriptors {
    pub(crate) const fn new() -> Self {
        Self {
            gdt: UnsafeCell::new([0, 0x00AF_9B00_0000_FFFF, 0, 0]),
            tss: UnsafeCell::new(TaskState {
                reserved0: 0,
                stacks: [0; 3],
                reserved1: 0,
                interrupt_stacks: [0; 7],
                reserved2: 0,
                reserved3: 0,
                // Behind the segment's limit: no I/O permission map.
                io_map_base: size_of::<TaskState>() as u16,
            }),
        }
    }

    /// Loads GDT and TSS on this CPU with the tops of its NMI, double fault and machine check
    /// stacks.
    ///
    /// # Safety
    /// Called once for each CPU, on that CPU, with stacks that are its own.
    pub(crate) unsafe fn load(&'static self, stack_tops: [u64; 3]) {
        // SAFETY: nobody else refers to the tables: see the function's contract.
        let (gdt, tss) = unsafe { (&mut *self.gdt.get(), &mut *self.tss.get()) };
        let mut interrupt_stacks = [0; 7];
        for (slot, top) in interrupt_stacks.iter_mut().zip(stack_tops) {
            *slot = top;
        }
        tss.interrupt_stacks = interrupt_stacks;
        let base = self.tss.get() as u64;
        let limit = size_of::<TaskState>() as u64 - 1;
        // Available 64-bit TSS, present.
        gdt[2] = limit | (base & 0xFF_FFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56;
        gdt[3] = base >> 32;
        // SAFETY: the tables live for ever; the code selector means the same as before.
        unsafe {
            lgdt(&DescriptorTablePointer::new(gdt));
            load_tr(SegmentSelector::from_raw(TSS_SELECTOR));
        }
    }
}

/// The one IDT, shared by all CPUs.
#[repr(align(16))]
struct InterruptTable(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written only while the boot CPU runs alone.
unsafe impl Sync for InterruptTable {}

static IDT: InterruptTable = InterruptTable(UnsafeCell::new([[0; 2]; 256]));

unsafe extern "C" {
    static __interrupt_stubs: u8;
}

/// Fills the IDT; with `use_stacks`, the gates of NMI, double fault and machine check
/// switch to their stacks, which every CPU's TSS must then have.
///
/// # Safety
/// Only the boot CPU runs.
pub(crate) unsafe fn fill_idt(use_stacks: bool) {
    // SAFETY: see the function's contract.
    let table = unsafe { &mut *IDT.0.get() };
    let stubs = &raw const __interrupt_stubs as u64;
    for (vector, gate) in table.iter_mut().enumerate() {
        let slot = match vector {
            2 if use_stacks => StackSlot::Nmi as u64,
            8 if use_stacks => StackSlot::DoubleFault as u64,
            18 if use_stacks => StackSlot::MachineCheck as u64,
            _ => 0,
        };
        let stub = stubs + vector as u64 * 16;
        // Present interrupt gate, ring 0.
        gate[0] = (stub & 0xFFFF)
            | u64::from(CODE_SELECTOR) << 16
            | slot << 32
            | 0x8E << 40
            | (stub >> 16 & 0xFFFF) << 48;
        gate[1] = stub >> 32;
    }
}

/// Loads the IDT on this CPU.
pub(crate) fn load_idt() {
    // SAFETY: the table was filled by the boot CPU before and lives for ever.
    unsafe { lidt(&DescriptorTablePointer::new(&*IDT.0.get())) };
}
