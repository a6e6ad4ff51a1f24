// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of the local APIC's mode, and what x2APIC mode refuses (Intel SDM vol. 3, 11.12).

use super::Results;
use crate::rt::apic::{
    self, ENABLE, LVT_LINT0, LVT_TIMER, MASKED, MSR_APIC_BASE, SPURIOUS, TPR, X2APIC,
};
use crate::rt::cpu;
use crate::rt::trap::{try_rdmsr, try_wrmsr};

const MSR_ID: u32 = 0x802;
const MSR_TPR: u32 = 0x808;

/// Writes IA32_APIC_BASE with these bits of the mode; false when it raises #GP.
fn set(mode: u64) -> bool {
    let base = cpu::rdmsr(MSR_APIC_BASE) & !(ENABLE | X2APIC);
    // SAFETY: the register page stays where it is.
    unsafe { try_wrmsr(MSR_APIC_BASE, base | mode) }
}

fn mode() -> u64 {
    cpu::rdmsr(MSR_APIC_BASE) & (ENABLE | X2APIC)
}

/// Begins and ends in xAPIC mode.
pub fn run(results: &mut Results<'_>) {
    let id = apic::id();
    results.equal(format_args!("x2APIC registers raise #GP"), try_rdmsr(MSR_ID), None);
    results.equal(format_args!("x2APIC without enable raises #GP"), set(X2APIC), false);
    apic::write(TPR, 0x35);
    results.equal(
        format_args!("to x2APIC"),
        (set(ENABLE | X2APIC), mode()),
        (true, ENABLE | X2APIC),
    );
    results.equal(format_args!("x2APIC identifier"), try_rdmsr(MSR_ID), Some(id.into()));
    results.equal(format_args!("task priority is kept"), try_rdmsr(MSR_TPR), Some(0x35));
    results.equal(format_args!("x2APIC to xAPIC raises #GP"), set(ENABLE), false);
    refused(results);
    results.equal(format_args!("x2APIC to off"), (set(0), mode()), (true, 0));
    results.equal(format_args!("off to x2APIC raises #GP"), set(ENABLE | X2APIC), false);
    results.equal(format_args!("off: registers raise #GP"), try_rdmsr(MSR_ID), None);
    results.equal(format_args!("off to xAPIC"), (set(ENABLE), mode()), (true, ENABLE));
    let reset = [SPURIOUS, TPR, LVT_TIMER, LVT_LINT0].map(apic::read);
    results.equal(format_args!("registers as after reset"), reset, [0xFF, 0, MASKED, MASKED]);
    results.equal(format_args!("identifier as before"), apic::id(), id);
    apic::enable(false);
}

/// What does not exist in x2APIC mode, or cannot be read or written.
fn refused(results: &mut Results<'_>) {
    // APR, EOI, RRD, DFR, the upper half of the command, self-IPI.
    for register in [0x809u32, 0x80B, 0x80C, 0x80E, 0x831, 0x83F] {
        let got = try_rdmsr(register);
        results.equal(format_args!("read of {register:#x} raises #GP"), got, None);
    }
    // ID, version, LDR, DFR, ISR, TMR, IRR, current count.
    for register in [0x802u32, 0x803, 0x80D, 0x80E, 0x810, 0x818, 0x820, 0x839] {
        // SAFETY: APIC registers do not change how memory is seen.
        let written = unsafe { try_wrmsr(register, 0) };
        results.equal(format_args!("write of {register:#x} raises #GP"), written, false);
    }
    // Reserved bits: TPR, EOI, SVR, ESR, timer entry, divider, self-IPI.
    let reserved = [
        (0x808u32, 1 << 8),
        (0x80B, 1),
        (0x80F, 1 << 31),
        (0x828, 1),
        (0x832, 1 << 31),
        (0x83E, 4),
    ];
    for (register, value) in reserved {
        // SAFETY: as above.
        let written = unsafe { try_wrmsr(register, value) };
        results.equal(format_args!("{value:#x} to {register:#x} raises #GP"), written, false);
    }
}
