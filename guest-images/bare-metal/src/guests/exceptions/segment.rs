// SPDX-License-Identifier: MIT OR Apache-2.0
//! #TS, #NP, #SS and #GP: segments, task state, and addresses that are not canonical.

use core::arch::asm;

use super::{fault, gate_error};
use crate::rt::report::Report;
use crate::rt::segments::{self, ABSENT_DATA, KERNEL_CODE, SCRATCH, TASK, USER_DATA};
use crate::rt::start_info::is_tcg_cpu;
use crate::rt::trap::{self, DONE, GP, NP, Place, SS, TS, UD};

const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;
/// A selector beyond the descriptor table.
const BEYOND: u16 = 0x1000;

pub fn run(report: &mut Report) {
    loads(report);
    not_canonical(report);
    gates(report);
    task_state(report);
}

fn load_ds(selector: u16) -> trap::Trap {
    run!(Place::KERNEL, ["mov ds, ax"], in("rax") u64::from(selector))
}

fn load_ss(selector: u16) -> trap::Trap {
    run!(Place::KERNEL, ["mov ss, ax"], in("rax") u64::from(selector))
}

fn loads(report: &mut Report) {
    fault(report, "#NP for DS", load_ds(ABSENT_DATA), NP, ABSENT_DATA.into());
    fault(report, "#SS for SS not present", load_ss(ABSENT_DATA), SS, ABSENT_DATA.into());
    fault(report, "#GP beyond the GDT", load_ds(BEYOND), GP, BEYOND.into());
    fault(report, "#GP for SS of user mode", load_ss(USER_DATA), GP, (USER_DATA & !3).into());
    fault(report, "#GP for SS with code", load_ss(KERNEL_CODE), GP, KERNEL_CODE.into());
    fault(report, "#GP for DS with task state", load_ds(TASK), GP, TASK.into());
    let trap = run!(Place::KERNEL, ["lldt ax"], in("rax") u64::from(KERNEL_CODE));
    fault(report, "#GP for LLDT of code", trap, GP, KERNEL_CODE.into());
    let trap = run!(Place::KERNEL, ["ltr ax"], in("rax") u64::from(TASK));
    fault(report, "#GP for LTR of a busy task", trap, GP, TASK.into());
    segments::set_descriptor(SCRATCH, 0x00AF_1B00_0000_FFFF);
    let trap = run!(Place::KERNEL, ["push rax", "push 0", "retfq"], in("rax") u64::from(SCRATCH));
    report.equal("#NP for far return to absent code", trap.cause(), (NP, SCRATCH.into()));
    segments::set_descriptor(SCRATCH, 0);
    let trap = run!(Place::KERNEL, ["mov cs, eax"], in("rax") 8);
    fault(report, "#UD for MOV to CS", trap, UD, 0);
    let trap = run!(Place::KERNEL.with_flags(1 << 14), ["iretq"]);
    fault(report, "#GP for IRET with NT", trap, GP, 0);
}

fn not_canonical(report: &mut Report) {
    let trap = run!(Place::KERNEL, ["mov rax, [rdi]"], in("rdi") NOT_CANONICAL, out("rax") _);
    fault(report, "#GP for a read", trap, GP, 0);
    let trap = run!(Place::KERNEL, ["mov [rdi], rax"], in("rdi") NOT_CANONICAL);
    fault(report, "#GP for a write", trap, GP, 0);
    // QEMU's TCG knows no #SS for addresses.
    let stack = if is_tcg_cpu() { GP } else { SS };
    let trap = run!(Place::USER, ["mov rsp, rdi", "push rax"], in("rdi") NOT_CANONICAL);
    report.equal("#SS for a push", trap.cause(), (stack, 0));
    let trap = run!(Place::USER, ["mov rax, [rsp + rdi]"], in("rdi") NOT_CANONICAL,
        out("rax") _);
    fault(report, "#SS for a read through RSP", trap, stack, 0);
    let trap = run!(Place::KERNEL, ["jmp rdi"], in("rdi") NOT_CANONICAL);
    report.equal("#GP for a jump", trap.cause(), (GP, 0));
}

/// A gate to nowhere in slot 0x90.
fn with_gate(gate: [u64; 2]) -> trap::Trap {
    trap::set_gate(0x90, gate);
    let trap = run!(Place::KERNEL, ["int 0x90"]);
    trap::reset_gate(0x90);
    trap
}

fn gates(report: &mut Report) {
    let absent = with_gate([u64::from(KERNEL_CODE) << 16 | 0x0E00 << 32, 0]);
    fault(report, "#NP for an absent gate", absent, NP, gate_error(0x90, false));
    let wrong = with_gate([u64::from(KERNEL_CODE) << 16 | 0x8500 << 32, 0]);
    fault(report, "#GP for a gate of a wrong type", wrong, GP, gate_error(0x90, false));
    let null = with_gate([0x8E00 << 32, 0]);
    fault(report, "#GP for a gate to the null selector", null, GP, 0);
    let beyond = with_gate([u64::from(BEYOND) << 16 | 0x8E00 << 32, 0]);
    fault(report, "#GP for a gate beyond the GDT", beyond, GP, BEYOND.into());

    let short = segments::TablePointer { limit: 0x8F * 16 - 1, base: trap::IDT.address() };
    // SAFETY: the vectors of exceptions and `DONE` stay within the limit.
    unsafe { asm!("lidt [{}]", in(reg) &raw const short) };
    let trap = run!(Place::KERNEL, ["int 0x90"]);
    trap::reload_idt();
    fault(report, "#GP beyond the IDT", trap, GP, gate_error(0x90, false));
}

/// Stack 7 of the interrupt stack table lies beyond a shortened task state segment.
fn task_state(report: &mut Report) {
    const AVAILABLE: u64 = 0x9 << 40;
    const TYPE: u64 = 0xF << 40;
    let whole = segments::descriptor(TASK) & !TYPE | AVAILABLE;
    let short = whole & !(0xF << 48 | 0xFFFF) | 0x53;
    let reload = |descriptor| {
        segments::set_descriptor(TASK, descriptor);
        // SAFETY: both descriptors lead to this CPU's task state.
        unsafe { asm!("ltr {:x}", in(reg) TASK) };
    };
    reload(short);
    trap::set_gate(0x90, {
        let [low, high] = trap::gate(0x90, 0x8E00);
        [low | 7 << 32, high]
    });
    let trap = run!(Place::KERNEL, ["int 0x90"]);
    trap::reset_gate(0x90);
    reload(whole);
    fault(report, "#TS for a stack beyond the task state", trap, TS, TASK.into());
    let trap = run!(Place::USER, ["nop"]);
    report.equal("user mode works again", trap.cause(), (DONE, 0));
}
