// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the first Rust instruction to `main`.

use alloc::vec::Vec;
use core::{
    arch::{asm, global_asm},
    error::Error,
    sync::atomic::Ordering,
};

use spin::Once;

use super::{BootInfo, MemoryKind, MemoryRegion, multiboot2, pvh};
use crate::{
    ExitCode, PhysAddr,
    acpi::Acpi,
    address::PAGE_SIZE,
    apic::{io, local, pic},
    console,
    cpu::{descriptors, enable_features, interrupt_flag, percpu::BOOT_CPU},
    facts, logger, machine,
    memory::{
        self, BootMemory,
        map::{self, PhysRange},
        stacks::CpuStacks,
    },
    smp::start::{self, TRAMPOLINE_PAGES},
    time::{self, calibrate},
};

global_asm!(include_str!("entry.s"));

const PVH: u32 = 1;
const ONE_MIB: u64 = 1 << 20;
/// Below it are the real-mode vectors and the BIOS data area.
const FIRST_TRAMPOLINE: u64 = 0x8000;

static BOOT_INFO: Once<BootInfo> = Once::new();

unsafe extern "Rust" {
    safe fn __cokernel_main(boot: &'static BootInfo) -> ExitCode;
    safe fn __cokernel_exit() -> machine::MachineExit;
}

/// Called by the boot code, on the boot stack.
#[unsafe(no_mangle)]
extern "C" fn cokernel_boot(protocol: u32, information: u64, image_base: u64, entry_tsc: u64) -> ! {
    time::set_entry_tsc(entry_tsc);
    machine::configure(__cokernel_exit());
    memory::set_image_base(PhysAddr(image_base));
    // SAFETY: this runs once, on the boot CPU alone, before anything else.
    unsafe {
        BOOT_CPU.install();
        descriptors::fill_idt(false);
        memory::add_boot_memory();
    }
    descriptors::load_idt();
    logger::init();
    let stacks = prepare_memory(protocol, information).unwrap_or_else(|error| refuse(&*error));
    // SAFETY: the stacks belong to the boot CPU, which runs alone; the boot stack is left for
    // good, and nothing on it is referred to from elsewhere.
    unsafe {
        BOOT_CPU.load_descriptors(&stacks);
        descriptors::fill_idt(true);
        asm!("mov rsp, {}", "xor ebp, ebp", "call {}", "ud2",
            in(reg) stacks.task_stack_top, sym run, options(noreturn));
    }
}

/// Ends a boot that cannot go on.
fn refuse(error: &dyn Error) -> ! {
    log::error!("cannot boot: {error}");
    machine::exit(machine::panic_code())
}

/// Reads the boot information, sets up the frame allocator and the final address space, and
/// allocates the boot CPU's stacks.
fn prepare_memory(
    protocol: u32,
    information: u64,
) -> Result<CpuStacks, alloc::boxed::Box<dyn Error>> {
    let info = if protocol == PVH {
        pvh::parse(&BootMemory, information)?
    } else {
        multiboot2::parse(&BootMemory, information)?
    };
    let info = BOOT_INFO.call_once(|| info);
    logger::configure(info);
    let image = memory::image_range();
    let modules = info.modules.iter().map(|module| PhysRange {
        start: module.start.0,
        end: module.start.0.saturating_add(module.length),
    });
    let low = PhysRange { start: 0, end: ONE_MIB };
    let reserved: Vec<PhysRange> = [low, image].into_iter().chain(modules).collect();
    memory::init_frames(map::usable_runs(&info.memory_map, &reserved))?;
    memory::init_address_space(&info.memory_map)?;
    let usable = info.memory_map.iter().filter(|r| r.kind == MemoryKind::Usable);
    facts::set_memory_bytes(usable.map(|r| r.length).sum());
    Ok(CpuStacks::new()?)
}

/// The rest of the boot, on a guarded stack.
extern "C" fn run() -> ! {
    let Some(info) = BOOT_INFO.get() else { machine::exit(machine::panic_code()) };
    enable_features();
    pic::silence();
    if let Err(error) = prepare_devices(info) {
        refuse(&*error);
    }
    interrupt_flag::set();
    facts::set_ready();
    let facts = facts::machine_facts();
    log::info!(
        "{} CPUs, {} MiB, TSC {}.{:03} MHz, {:?} boot in {} us",
        facts.cpus,
        facts.memory_bytes >> 20,
        facts.tsc_hz / 1_000_000,
        facts.tsc_hz / 1000 % 1000,
        info.protocol,
        time::scale::scale(facts.boot_ticks, 1_000_000, facts.tsc_hz)
    );
    let ExitCode(code) = __cokernel_main(info);
    machine::exit(code)
}

/// ACPI, interrupt controllers, time, the other CPUs, the console.
fn prepare_devices(info: &BootInfo) -> Result<(), alloc::boxed::Box<dyn Error>> {
    let acpi = facts::set_acpi(Acpi::read(&BootMemory, info.rsdp.as_ref())?);
    let tsc = calibrate::tsc_frequency(acpi.fadt.as_ref())
        .ok_or("the frequency of the TSC can be neither read nor measured")?;
    time::set_tsc_hz(tsc.hz);
    local::choose_mode(acpi.madt.local_apic)?;
    local::enable();
    BOOT_CPU.apic_id.store(local::id(), Ordering::Relaxed);
    let timer_hz = time::timer::choose_mode();
    time::timer::init_cpu();
    io::init(&acpi.madt.io_apics);
    start::start_all(&acpi.madt, find_trampoline(&info.memory_map));
    console::init(&acpi.madt);
    log::debug!(
        "TSC frequency from {}; {} mode; timer {}",
        tsc.source,
        if local::is_x2apic() { "x2APIC" } else { "xAPIC" },
        timer_hz.map_or("by TSC deadline", |_| "one-shot")
    );
    Ok(())
}

/// Usable pages below 1 MiB for starting CPUs.
fn find_trampoline(memory_map: &[MemoryRegion]) -> Option<PhysAddr> {
    let bytes = TRAMPOLINE_PAGES * PAGE_SIZE;
    memory_map.iter().filter(|region| region.kind == MemoryKind::Usable).find_map(|region| {
        let start = region.start.max(FIRST_TRAMPOLINE).next_multiple_of(PAGE_SIZE);
        (start + bytes <= region.end().min(0xA_0000)).then_some(PhysAddr(start))
    })
}
