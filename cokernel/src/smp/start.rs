// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting the other CPUs (Intel SDM volume 3, section 9.4.4).

use alloc::{boxed::Box, vec, vec::Vec};
use core::{
    arch::global_asm,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{CPUS, serve};
use crate::{
    PhysAddr,
    acpi::Madt,
    apic::local::{self, Ipi},
    cpu::{
        descriptors, enable_features, interrupt_flag,
        percpu::{BOOT_CPU, PerCpu},
    },
    memory::{address_space_root, phys_to_virt, stacks::CpuStacks, trampoline_table},
    time,
};

global_asm!(include_str!("trampoline.s"));

unsafe extern "C" {
    static __trampoline_start: u8;
    static __trampoline_fields: u8;
    static __trampoline_end: u8;
}

/// Pages that starting takes: the code and three page tables.
pub(crate) const TRAMPOLINE_PAGES: u64 = 4;

const INIT_MICROSECONDS: u64 = 10_000;
const SIPI_MICROSECONDS: u64 = 200;
/// For how long a CPU may take to arrive; an emulator on a loaded machine is slow.
const ARRIVAL_MICROSECONDS: u64 = 1_000_000;

static ARRIVED: AtomicU32 = AtomicU32::new(0);

/// Fields at the end of the trampoline, in its order.
#[repr(C)]
struct Fields {
    mailbox: u64,
    stack: u64,
    final_cr3: u64,
    entry: u64,
    trampoline_cr3: u64,
    far_offset: u32,
    far_selector: u32,
    gdt_offset: u64,
    gdt_base_offset: u64,
    long_mode_offset: u64,
}

/// What a starting CPU is given.
struct Arrival {
    cpu: &'static PerCpu,
    stacks: CpuStacks,
}

/// The code below 1 MiB, in place.
struct Trampoline {
    page: PhysAddr,
    fields: NonNull<Fields>,
}

impl Trampoline {
    /// Copies the code to `page`, followed by [`TRAMPOLINE_PAGES`] − 1 pages for page tables.
    fn install(page: PhysAddr) -> Self {
        let start = &raw const __trampoline_start;
        let length = &raw const __trampoline_end as usize - start as usize;
        let fields_offset = &raw const __trampoline_fields as usize - start as usize;
        let tables = PhysAddr(page.0 + 4096);
        trampoline_table(tables);
        // SAFETY: the page was reserved for this; the code fits it (checked by the assembler's
        // 16-bit offsets and by its size); the fields are 8-byte aligned inside.
        unsafe {
            let target = phys_to_virt(page);
            target.copy_from_nonoverlapping(NonNull::new_unchecked(start.cast_mut()), length);
            let fields = target.add(fields_offset).cast::<Fields>();
            let mut value = fields.read();
            value.final_cr3 = address_space_root().0;
            value.entry = arrive as *const () as u64;
            value.trampoline_cr3 = tables.0;
            value.far_offset = (page.0 + value.long_mode_offset) as u32;
            let gdt_base = (page.0 + value.gdt_offset) as u32;
            target.add(value.gdt_base_offset as usize).cast::<u32>().write_unaligned(gdt_base);
            fields.write(value);
            Self { page, fields }
        }
    }

    fn post(&self, arrival: &'static Arrival) {
        // SAFETY: no CPU looks at the stack before it has taken the mailbox, which is written
        // last; x86 keeps the order of stores.
        unsafe {
            let fields = self.fields.as_ptr();
            (&raw mut (*fields).stack).write_volatile(arrival.stacks.task_stack_top);
            let mailbox = core::ptr::from_ref(arrival) as u64;
            (&raw mut (*fields).mailbox).write_volatile(mailbox);
        }
    }

    /// Empties the mailbox; false if a CPU has taken what was in it.
    fn withdraw(&self) -> bool {
        // SAFETY: the field is a valid, aligned u64 that only this and XCHG on a starting CPU
        // change.
        let mailbox = unsafe {
            core::sync::atomic::AtomicU64::from_ptr(&raw mut (*self.fields.as_ptr()).mailbox)
        };
        mailbox.swap(0, Ordering::AcqRel) != 0
    }
}

/// Starts all enabled CPUs of `madt` other than this one. `trampoline` is the first of
/// [`TRAMPOLINE_PAGES`] pages below 1 MiB; without them the boot CPU stays alone.
pub(crate) fn start_all(madt: &Madt, trampoline: Option<PhysAddr>) {
    let this = BOOT_CPU.apic_id.load(Ordering::Relaxed);
    let reachable = |id: u32| local::is_x2apic() || id < 0xFF;
    let others: Vec<u32> = madt
        .cpus
        .iter()
        .filter(|cpu| cpu.enabled && cpu.apic_id != this && reachable(cpu.apic_id))
        .map(|cpu| cpu.apic_id)
        .collect();
    let mut cpus = vec![&BOOT_CPU];
    match trampoline {
        _ if others.is_empty() => {}
        Some(page) => start_each(&Trampoline::install(page), &others, &mut cpus),
        None => log::warn!("no free memory below 1 MiB: {} CPUs are not started", others.len()),
    }
    CPUS.call_once(|| cpus);
}

fn start_each(trampoline: &Trampoline, others: &[u32], cpus: &mut Vec<&'static PerCpu>) {
    for &apic_id in others {
        local::send(apic_id, Ipi::Init);
    }
    time::spin_microseconds(INIT_MICROSECONDS);
    for &apic_id in others {
        let Ok(stacks) = CpuStacks::new() else {
            log::warn!("no memory for the stacks of the CPU with APIC ID {apic_id}");
            return;
        };
        let cpu = Box::leak(Box::new(PerCpu::new(cpus.len() as u32, apic_id)));
        let arrival = Box::leak(Box::new(Arrival { cpu, stacks }));
        if start_one(trampoline, apic_id, arrival) {
            cpus.push(cpu);
        } else {
            log::warn!("the CPU with APIC ID {apic_id} does not start");
        }
    }
}

fn start_one(trampoline: &Trampoline, apic_id: u32, arrival: &'static Arrival) -> bool {
    let index = arrival.cpu.index();
    let has_arrived = || ARRIVED.load(Ordering::Acquire) == index;
    let page = (trampoline.page.0 >> 12) as u8;
    trampoline.post(arrival);
    for patience in [SIPI_MICROSECONDS, ARRIVAL_MICROSECONDS] {
        local::send(apic_id, Ipi::StartUp(page));
        let end = time::tsc() + time::scale::scale(patience, time::tsc_hz(), 1_000_000);
        while time::tsc() < end {
            if has_arrived() {
                return true;
            }
            core::hint::spin_loop();
        }
    }
    // If it took the mailbox in the last moment, it will arrive.
    if trampoline.withdraw() {
        return false;
    }
    while !has_arrived() {
        core::hint::spin_loop();
    }
    true
}

/// First Rust code of a started CPU, on its own stack but still on the trampoline's tables.
extern "C" fn arrive(arrival: &'static Arrival, cr3: u64) -> ! {
    // SAFETY: the final tables map everything in the upper half just as the present ones do;
    // the per-CPU data and stacks were made for this CPU.
    unsafe {
        x86::controlregs::cr3_write(cr3);
        arrival.cpu.install();
        arrival.cpu.load_descriptors(&arrival.stacks);
    }
    descriptors::load_idt();
    enable_features();
    local::enable();
    time::timer::init_cpu();
    ARRIVED.store(arrival.cpu.index(), Ordering::Release);
    interrupt_flag::set();
    serve()
}
