// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC in xAPIC or x2APIC mode (Intel SDM volume 3, chapter 11; AMD64 APM volume
//! 2, chapter 16).

use core::sync::atomic::{AtomicU64, Ordering};

use raw_cpuid::CpuId;
use x86::msr::{IA32_APIC_BASE, rdmsr, wrmsr};

use crate::{
    PhysAddr,
    cpu::interrupt_flag,
    interrupts::vectors,
    memory::{map_device, paging::MapError},
};

const X2APIC_MSRS: u32 = 0x800;
const APIC_BASE_ENABLE: u64 = 1 << 11;
const APIC_BASE_X2APIC: u64 = 1 << 10;

const ID: u32 = 0x02;
const TASK_PRIORITY: u32 = 0x08;
const EOI: u32 = 0x0B;
const SPURIOUS: u32 = 0x0F;
const ERROR_STATUS: u32 = 0x28;
const COMMAND: u32 = 0x30;
const COMMAND_HIGH: u32 = 0x31;
const LVT_TIMER: u32 = 0x32;
const LVT_LINT0: u32 = 0x35;
const LVT_LINT1: u32 = 0x36;
const LVT_ERROR: u32 = 0x37;
const TIMER_INITIAL: u32 = 0x38;
const TIMER_CURRENT: u32 = 0x39;
const TIMER_DIVIDE: u32 = 0x3E;

const LVT_MASKED: u32 = 1 << 16;
const LVT_NMI: u32 = 4 << 8;
const TIMER_DEADLINE: u32 = 2 << 17;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const DELIVERY_PENDING: u32 = 1 << 12;
const LEVEL_ASSERT: u32 = 1 << 14;
const DIVIDE_BY_1: u32 = 0xB;

/// Virtual address of the xAPIC's registers; zero in x2APIC mode.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// What an inter-processor interrupt does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ipi {
    /// Delivers this vector.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// Resets the CPU into wait-for-SIPI.
    Init,
    /// Starts the CPU at this page below 1 MiB.
    StartUp(u8),
}

impl Ipi {
    const fn command(self) -> u32 {
        LEVEL_ASSERT
            | match self {
                Self::Fixed(vector) => vector as u32,
                Self::Nmi => 4 << 8,
                Self::Init => 5 << 8,
                Self::StartUp(page) => 6 << 8 | page as u32,
            }
    }
}

fn read(register: u32) -> u32 {
    match REGISTERS.load(Ordering::Relaxed) {
        // SAFETY: in x2APIC mode the register is an MSR; reading has no side effect.
        0 => unsafe { rdmsr(X2APIC_MSRS + register) as u32 },
        // SAFETY: the registers are mapped for good.
        base => unsafe { ((base + u64::from(register) * 16) as *const u32).read_volatile() },
    }
}

fn write(register: u32, value: u32) {
    match REGISTERS.load(Ordering::Relaxed) {
        // SAFETY: in x2APIC mode the register is an MSR; values written are valid for it.
        0 => unsafe { wrmsr(X2APIC_MSRS + register, u64::from(value)) },
        // SAFETY: the registers are mapped for good.
        base => unsafe { ((base + u64::from(register) * 16) as *mut u32).write_volatile(value) },
    }
}

/// True if the local APICs are in x2APIC mode.
pub(crate) fn is_x2apic() -> bool {
    REGISTERS.load(Ordering::Relaxed) == 0
}

/// Chooses the mode, once, on the boot CPU: x2APIC wherever the CPU has it.
pub(crate) fn choose_mode(address: PhysAddr) -> Result<(), MapError> {
    if !CpuId::new().get_feature_info().is_some_and(|f| f.has_x2apic()) {
        let registers = map_device(address, 4096)?;
        REGISTERS.store(registers.as_ptr() as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Enables the local APIC of the executing CPU, its timer stopped.
pub(crate) fn enable() {
    // SAFETY: enabling is the purpose; the base address is kept.
    unsafe {
        let base = rdmsr(IA32_APIC_BASE) | APIC_BASE_ENABLE;
        wrmsr(IA32_APIC_BASE, base);
        if is_x2apic() {
            wrmsr(IA32_APIC_BASE, base | APIC_BASE_X2APIC);
        }
    }
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(vectors::SPURIOUS));
    write(TASK_PRIORITY, 0);
    write(LVT_TIMER, LVT_MASKED);
    write(LVT_LINT0, LVT_MASKED);
    write(LVT_LINT1, LVT_NMI);
    write(LVT_ERROR, u32::from(vectors::APIC_ERROR));
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    clear_errors();
    end_of_interrupt();
}

/// APIC ID of the executing CPU.
pub(crate) fn id() -> u32 {
    let id = read(ID);
    if is_x2apic() { id } else { id >> 24 }
}

/// Tells the local APIC that the interrupt being handled is done.
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// Clears and returns the error status.
pub(crate) fn clear_errors() -> u32 {
    write(ERROR_STATUS, 0);
    read(ERROR_STATUS)
}

/// Sends an interrupt to the CPU with `apic_id`.
pub(crate) fn send(apic_id: u32, ipi: Ipi) {
    if is_x2apic() {
        // Earlier stores must be visible to the receiver: WRMSR here does not order them
        // (Intel SDM volume 3, section 11.12.3).
        // SAFETY: fences and a valid command.
        unsafe {
            core::arch::asm!("mfence", "lfence", options(nostack));
            wrmsr(X2APIC_MSRS + COMMAND, u64::from(apic_id) << 32 | u64::from(ipi.command()));
        }
        return;
    }
    // The command is two registers; an interrupt between them could send one, too.
    let _no_interrupts = interrupt_flag::disable();
    while read(COMMAND) & DELIVERY_PENDING != 0 {
        core::hint::spin_loop();
    }
    write(COMMAND_HIGH, apic_id << 24);
    write(COMMAND, ipi.command());
}

/// Starts the one-shot timer from `count`, which is not zero.
pub(crate) fn start_timer(count: u32) {
    write(TIMER_INITIAL, count);
}

/// Stops the one-shot timer.
pub(crate) fn stop_timer() {
    write(TIMER_INITIAL, 0);
}

/// What is left of the count.
pub(crate) fn timer_count() -> u32 {
    read(TIMER_CURRENT)
}

/// Lets the timer interrupt, in TSC-deadline or in one-shot mode.
pub(crate) fn unmask_timer(tsc_deadline: bool) {
    let mode = if tsc_deadline { TIMER_DEADLINE } else { 0 };
    write(LVT_TIMER, mode | u32::from(vectors::TIMER));
    // Orders the write before later ones to the deadline MSR (SDM volume 3, section 11.5.4.1).
    // SAFETY: a fence.
    unsafe { core::arch::asm!("mfence", options(nostack)) };
}
