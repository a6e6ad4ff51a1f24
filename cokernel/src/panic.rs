// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end after a bug: stop all CPUs, say what is known, end the machine.

use core::{
    arch::asm,
    panic::PanicInfo,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    cpu::{interrupt_flag, percpu::this_cpu_index},
    logger::{self, write_raw},
    machine,
    memory::stacks,
    smp, symbols,
};

/// No CPU panics.
const NOBODY: u32 = u32::MAX;
const MAX_BACKTRACE: u32 = 48;

static PANICKING_CPU: AtomicU32 = AtomicU32::new(NOBODY);

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    begin();
    let location = info.location();
    write_raw(format_args!(
        "PANIC on cpu{} at {}:{}: {}",
        this_cpu_index(),
        location.map_or("?", |l| l.file()),
        location.map_or(0, |l| l.line()),
        info.message()
    ));
    let (rip, rbp): (u64, u64);
    // SAFETY: reads the instruction and frame pointers.
    unsafe {
        asm!("lea {}, [rip]", "mov {}, rbp", out(reg) rip, out(reg) rbp,
            options(nomem, nostack, preserves_flags));
    }
    print_backtrace(rip, rbp);
    end()
}

/// Makes this CPU the one that reports, and stops the others. A second CPU that panics at the
/// same time stops here; the reporting CPU itself, panicking again, ends the machine.
pub(crate) fn begin() {
    interrupt_flag::clear();
    let this = this_cpu_index();
    let first = PANICKING_CPU.compare_exchange(NOBODY, this, Ordering::AcqRel, Ordering::Acquire);
    match first {
        Ok(_) => {
            logger::enter_panic();
            smp::stop_others();
        }
        Err(cpu) if cpu == this => end(),
        Err(_) => machine::halt(),
    }
}

/// Ends the machine with the status of a panic.
pub(crate) fn end() -> ! {
    machine::exit(machine::panic_code())
}

/// Called on an NMI: stops the CPU if another one panics.
pub(crate) fn halt_if_stopping() {
    let cpu = PANICKING_CPU.load(Ordering::Acquire);
    if cpu != NOBODY && cpu != this_cpu_index() {
        machine::halt();
    }
}

/// Prints the chain of calls that led to `rip`, by frame pointers.
pub(crate) fn print_backtrace(rip: u64, rbp: u64) {
    write_raw(format_args!("  backtrace:"));
    let (mut address, mut frame) = (rip, rbp);
    for depth in 0..MAX_BACKTRACE {
        // A return address may be the start of the next function: look one byte before.
        let lookup = if depth == 0 { address } else { address.wrapping_sub(1) };
        match symbols::lookup(lookup) {
            Some((name, offset)) => {
                write_raw(format_args!("  {depth:>3}: {address:016x} {name}+{offset:#x}"));
            }
            None => write_raw(format_args!("  {depth:>3}: {address:016x}")),
        }
        if frame == 0 || !frame.is_multiple_of(8) || !stacks::contains(frame, 16) {
            break;
        }
        // SAFETY: both words are mapped memory.
        let (next, back) = unsafe { (*(frame as *const u64), *((frame + 8) as *const u64)) };
        if back == 0 || next <= frame && next != 0 {
            break;
        }
        (frame, address) = (next, back);
    }
}
