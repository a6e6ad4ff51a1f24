// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions on the way to a handler: faults during delivery, and the double fault.

use core::arch::asm;
use core::ptr;

use super::gate_error;
use crate::rt::apic;
use crate::rt::cpu;
use crate::rt::interrupts;
use crate::rt::paging::{self, PAGE, PRESENT, SCRATCH, WRITABLE};
use crate::rt::pic;
use crate::rt::report::Report;
use crate::rt::segments::{self, KERNEL_CODE, TablePointer};
use crate::rt::start_info::is_tcg_shadow;
use crate::rt::trap::{self, DF, DONE, GP, NP, PF, Place, UD};

/// An interrupt gate that is not present.
const ABSENT_GATE: [u64; 2] = [(KERNEL_CODE as u64) << 16 | 0x0E00 << 32, 0];

pub fn run(report: &mut Report) {
    absent_gates(report);
    double_faults(report);
    absent_table(report);
    external(report);
}

/// Exceptions that find no gate: the #NP makes a double fault of them.
fn absent_gates(report: &mut Report) {
    if is_tcg_shadow() {
        return report.skip("absent gates", "QEMU's TCG makes no double fault of what is injected");
    }
    trap::set_gate(GP, ABSENT_GATE);
    let trap = run!(Place::USER, ["hlt"]);
    trap::reset_gate(GP);
    report.equal("#GP with an absent gate", trap.cause(), (DF, 0));

    trap::set_gate(PF, ABSENT_GATE);
    let trap = run!(Place::KERNEL, ["mov eax, [rdi]"], in("rdi") paging::page(5), out("rax") _);
    trap::reset_gate(PF);
    report.equal("#PF with an absent gate", trap.cause(), (DF, 0));
}

fn double_faults(report: &mut Report) {
    trap::set_gate(UD, ABSENT_GATE);
    let trap = run!(Place::KERNEL, ["ud2"]);
    trap::reset_gate(UD);
    report.equal("#UD with an absent gate is #NP", trap.cause(), (NP, gate_error(UD, true)));

    paging::map(6, 0);
    let trap = run!(Place::KERNEL, ["mov rsp, rdi", "ud2"], in("rdi") paging::page(6) + 0x800);
    report.equal("#UD without a stack", trap.cause(), (DF, 0));
    report.equal("#UD without a stack, CR2", trap.cr2 & !(PAGE - 1), paging::page(6));

    let task = segments::task_state();
    // SAFETY: user mode finds no stack for the kernel; the double fault has its own.
    let before = unsafe {
        let stack = &raw mut (*task).rsp[0];
        let before = ptr::read_unaligned(stack);
        ptr::write_unaligned(stack, paging::page(6) + 0x800);
        before
    };
    let trap = run!(Place::USER, ["ud2"]);
    // SAFETY: as it was.
    unsafe { ptr::write_unaligned(&raw mut (*task).rsp[0], before) };
    report.equal("#UD in user mode without a kernel stack", trap.cause(), (DF, 0));
}

/// The second half of the IDT, vectors 128 and up, lies in a page that is absent at first.
fn absent_table(report: &mut Report) {
    const FIRST: usize = 16;
    let scratch = SCRATCH.address();
    let table = paging::page(FIRST) + PAGE / 2;
    // SAFETY: copies the table into scratch memory.
    unsafe {
        ptr::copy_nonoverlapping(
            trap::IDT.get().cast::<u8>(),
            (scratch + PAGE / 2) as *mut u8,
            PAGE as usize,
        );
    }
    paging::map(FIRST, scratch | PRESENT | WRITABLE);
    paging::map(FIRST + 1, 0);
    let pointer = TablePointer { limit: 0xFFF, base: table };
    // SAFETY: the vectors of all exceptions are in the first page.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer) };
    let absent = run!(Place::KERNEL, ["int 0x90"]);
    paging::map(FIRST + 1, (scratch + PAGE) | PRESENT | WRITABLE);
    let present = run!(Place::KERNEL, ["int 0x90"]);
    trap::reload_idt();
    report.equal("absent IDT page", absent.cause(), (PF, 0));
    report.equal("absent IDT page, CR2", absent.cr2 & !0xF, table + 0x90 * 16);
    report.equal("absent IDT page, RIP", absent.at_instruction(), true);
    report.equal("IDT page present", present.cause(), (0x90, 0));
}

/// Faults that an external interrupt meets have the EXT bit.
fn external(report: &mut Report) {
    const VECTOR: u64 = 0x90;
    pic::init();
    apic::enable(false);
    trap::set_gate(VECTOR, ABSENT_GATE);
    apic::send(0, apic::ICR_SELF | VECTOR as u32);
    let trap = run!(Place::KERNEL, ["sti", "nop", "nop", "cli"]);
    trap::reset_gate(VECTOR);
    report.equal("interrupt with an absent gate", trap.cause(), (NP, gate_error(VECTOR, true)));
    interrupts::count(VECTOR);
    cpu::open_interrupt_window();
    let (seen, waits) = (interrupts::seen(VECTOR), apic::vector_bit(apic::IRR, VECTOR));
    report.equal("it was taken from the APIC", (seen, waits), (0, false));
    apic::end_of_interrupt();
    report.equal("and is over", apic::vector_bit(apic::ISR, VECTOR), false);

    apic::send(0, apic::ICR_SELF | VECTOR as u32);
    trap::handle(VECTOR, None);
    let trap = run!(Place::USER.with_flags(1 << 9), ["2:", "jmp 2b"]);
    report.equal("interrupt of user mode", trap.cause(), (VECTOR, 0));
    apic::end_of_interrupt();
    let trap = run!(Place::KERNEL, ["nop"]);
    report.equal("all is well afterwards", trap.cause(), (DONE, 0));
}
