// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions that a VMM may intercept.

use core::arch::asm;

use bare_metal::rt::cpu::{self, cpuid};
use bare_metal::rt::trap::catch;

use crate::samples::Bench;

/// The page attribute table: every VMM answers it itself.
const PAT: u32 = 0x277;

/// A hypercall that nobody has.
const NO_HYPERCALL: u64 = 0xFFFF;

const WRITE_PROTECT: u64 = 1 << 16;

/// Measures them.
pub fn run(bench: &Bench) {
    bench.operation("cpuid", || {
        cpuid(1, 0);
    });
    hypercall(bench);
    let pat = cpu::rdmsr(PAT);
    bench.operation("rdmsr", || {
        cpu::rdmsr(PAT);
    });
    // SAFETY: the value is the one it has.
    bench.operation("wrmsr", || unsafe { cpu::wrmsr(PAT, pat) });
    let cr0 = cpu::read_cr0();
    bench.operation("cr0-wp-toggle", || {
        // SAFETY: nothing relies on write protection between the two.
        unsafe {
            cpu::write_cr0(cr0 & !WRITE_PROTECT);
            cpu::write_cr0(cr0 | WRITE_PROTECT);
        }
    });
    let cr3 = cpu::read_cr3();
    // SAFETY: the value is the one it has.
    bench.operation("cr3-load", || unsafe { cpu::write_cr3(cr3) });
}

fn hypercall(bench: &Bench) {
    let call: fn() = if cpuid(0, 0)[1] == u32::from_le_bytes(*b"Genu") { vmcall } else { vmmcall };
    if catch(call).is_some() {
        bench.skip("hypercall", "there is nobody to call");
        return;
    }
    bench.operation("hypercall", call);
}

fn vmmcall() {
    // SAFETY: whoever answers changes RAX and nothing else; if nobody does, it is an exception.
    unsafe { asm!("vmmcall", inout("rax") NO_HYPERCALL => _, in("rcx") 0, in("rdx") 0) };
}

fn vmcall() {
    // SAFETY: as for `vmmcall`.
    unsafe { asm!("vmcall", inout("rax") NO_HYPERCALL => _, in("rcx") 0, in("rdx") 0) };
}
