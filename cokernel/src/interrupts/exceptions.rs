// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions: all are fatal to the co-kernel.

use core::arch::asm;

use x86::controlregs::cr2;

use super::Frame;
use crate::{cpu::percpu::this_cpu_index, logger::write_raw, panic};

const NAMES: [&str; 32] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 floating point",
    "alignment check",
    "machine check",
    "SIMD floating point",
    "virtualization",
    "control protection",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "hypervisor injection",
    "VMM communication",
    "security",
    "reserved",
];

/// True, and forgotten, for a single step that the interrupted code did not ask for.
///
/// Bochs 2.7 takes the step of an SVM guest over into the host when the stepped instruction
/// exits, where it comes before the host's GS is back. So nothing here may use GS.
pub(super) fn is_stray_step(frame: &Frame) -> bool {
    const SINGLE_STEP: u64 = 1 << 14;
    const TRAP_FLAG: u64 = 1 << 8;
    let dr6: u64;
    // SAFETY: reading DR6 has no effect while DR7.GD is clear, as the CPU has it here.
    unsafe { asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack, preserves_flags)) }
    let stray = dr6 & SINGLE_STEP != 0 && frame.rflags & TRAP_FLAG == 0;
    if stray {
        // SAFETY: the register only tells what happened.
        unsafe {
            asm!("mov dr6, {}", in(reg) dr6 & !SINGLE_STEP, options(nomem, nostack, preserves_flags));
        }
    }
    stray
}

/// Prints registers and backtrace and ends the machine.
pub(super) fn report(frame: &Frame) -> ! {
    panic::begin();
    let vector = frame.vector;
    let name = NAMES.get(vector as usize).copied().unwrap_or("unknown");
    write_raw(format_args!(
        "PANIC on cpu{}: exception {vector} ({name}), error code {:#x}",
        this_cpu_index(),
        frame.error_code
    ));
    print_registers(frame);
    panic::print_backtrace(frame.rip, frame.rbp);
    panic::end()
}

fn print_registers(frame: &Frame) {
    // SAFETY: reading CR2 has no effect.
    let fault_address = unsafe { cr2() };
    let Frame { rip, cs, rflags, rsp, ss, .. } = frame;
    write_raw(format_args!(
        "  rip {rip:016x}  cs {cs:04x}  rflags {rflags:08x}  rsp {rsp:016x}  ss {ss:04x}  cr2 {fault_address:016x}"
    ));
    let rows = [
        [("rax", frame.rax), ("rbx", frame.rbx), ("rcx", frame.rcx), ("rdx", frame.rdx)],
        [("rsi", frame.rsi), ("rdi", frame.rdi), ("rbp", frame.rbp), (" r8", frame.r8)],
        [(" r9", frame.r9), ("r10", frame.r10), ("r11", frame.r11), ("r12", frame.r12)],
    ];
    for [(a, av), (b, bv), (c, cv), (d, dv)] in rows {
        write_raw(format_args!("  {a} {av:016x}  {b} {bv:016x}  {c} {cv:016x}  {d} {dv:016x}"));
    }
    write_raw(format_args!(
        "  r13 {:016x}  r14 {:016x}  r15 {:016x}",
        frame.r13, frame.r14, frame.r15
    ));
}
