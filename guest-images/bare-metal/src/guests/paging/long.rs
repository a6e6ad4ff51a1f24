// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses in long mode.

use core::arch::asm;

use vmm_core::paging::walk::page_fault;
use vmm_core::state::{ControlRegisters, cr0, cr4, efer};

use super::access::{self, Step};
use super::compare::Snapshots;
use super::{Mode, tables};
use crate::rt::paging::{PRESENT, WRITABLE};
use crate::rt::segments::{KERNEL_DATA, USER_CODE, USER_DATA};
use crate::rt::{cpu, trap};

const EFER: u32 = 0xC000_0080;

/// Makes the accesses with these control registers.
pub fn run(control: &ControlRegisters, steps: &mut [Step], snapshots: &mut Snapshots) {
    let before = (cpu::read_cr0(), cpu::read_cr3(), cpu::read_cr4(), cpu::rdmsr(EFER));
    let switches = cr4::PSE | cr4::PGE | cr4::SMEP | cr4::SMAP;
    // SAFETY: the tables at CR3 map this program for the kernel, where it is; there alone may
    // SMEP and SMAP be on. No entry of the program's has bit 63 set.
    unsafe {
        cpu::write_cr3(control.cr3);
        cpu::write_cr4(before.2 & !switches | control.cr4 & switches);
        cpu::write_cr0(before.0 & !cr0::WP | control.cr0 & cr0::WP);
        cpu::wrmsr(EFER, before.3 & !efer::NXE | control.efer & efer::NXE);
    }
    for (index, step) in steps.iter_mut().enumerate() {
        one(control.cr3, step);
        snapshots.keep_found(index);
    }
    // SAFETY: as it was.
    unsafe {
        cpu::wrmsr(EFER, before.3);
        cpu::write_cr0(before.0);
        cpu::write_cr4(before.2);
        cpu::write_cr3(before.1);
    }
}

/// Whether the CPU takes a table's entry with bit 8, the global bit of pages, set.
pub fn ignores_table_global() -> bool {
    const GLOBAL: u64 = 1 << 8;
    tables::clear(Mode::Long);
    tables::set(Mode::Long, 0, 1, tables::address(1) | GLOBAL | PRESENT | WRITABLE);
    let mut steps = [Step {
        address: 1 << 39,
        instruction: access::user_page(),
        flags: 2,
        code: USER_CODE.into(),
        ..Step::default()
    }];
    let control = ControlRegisters { cr3: tables::address(0), ..ControlRegisters::default() };
    run(&control, &mut steps, &mut Snapshots::new(Mode::Long));
    steps.iter().all(|step| step.error & page_fault::RESERVED == 0)
}

fn one(cr3: u64, step: &mut Step) {
    // SAFETY: the same tables again: only cached translations are dropped.
    unsafe {
        cpu::write_cr3(cr3);
        asm!("invlpg [{}]", in(reg) step.address, options(nostack));
    }
    let stack = if step.code & 3 == 3 { USER_DATA } else { KERNEL_DATA };
    let ended = trap::catch(|| {
        // SAFETY: whatever comes of the access ends in a trap, and `catch` then restores the
        // registers and the stack. The access reaches only what `draw` lets through.
        unsafe {
            asm!(
                "mov rcx, rsp",
                "push {stack}",
                "push rcx",
                "push {flags}",
                "push {code}",
                "push {instruction}",
                "iretq",
                stack = in(reg) u64::from(stack),
                flags = in(reg) u64::from(step.flags),
                code = in(reg) u64::from(step.code),
                instruction = in(reg) step.instruction,
                in("rdi") step.address,
                in("rax") u64::from(step.value),
                options(noreturn),
            );
        }
    })
    .unwrap_or_default();
    step.vector = ended.frame.vector as u32;
    step.error = ended.frame.error as u32;
    step.result = ended.frame.rax as u32;
    step.cr2 = ended.cr2;
    step.trapped_at = ended.frame.rip;
}
