// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers that are switched between VMs, or should be: filled with numbers that nobody else has.

use core::arch::asm;

use crate::rt::cell::Fixed;
use crate::rt::cpu;

/// STAR, LSTAR, CSTAR, SFMASK, KernelGSBase, and what SYSENTER uses.
const MSRS: [u32; 8] =
    [0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102, 0x174, 0x175, 0x176];

/// The vector registers as they are stored.
static VECTORS: Fixed<[u128; 16]> = Fixed::new([0; 16]);

/// What registers hold.
#[derive(PartialEq, Eq)]
pub struct Registers {
    /// Those of `MSRS`, in that order.
    pub msrs: [u64; MSRS.len()],
    /// DR0 to DR3.
    pub debug: [u64; 4],
    /// XMM0 to XMM15.
    pub vectors: [u128; 16],
}

impl Registers {
    /// Fills them.
    pub fn fill() -> Self {
        for (index, msr) in MSRS.into_iter().enumerate() {
            // Canonical, and within 32 bits, for all of them.
            let value = 0x4E45_4900 + index as u64;
            // SAFETY: this program makes no system calls and does not swap GS.
            unsafe { cpu::wrmsr(msr, value) };
        }
        let words: [u128; 16] =
            core::array::from_fn(|index| 0x6E65_6967_6862_6F75_7200_0000_0000_0000 + index as u128);
        // SAFETY: the program is built without vector instructions, and DR7 stays off.
        unsafe {
            asm!("mov dr0, {0}", "mov dr1, {1}", "mov dr2, {2}", "mov dr3, {3}",
                 in(reg) 0x4E45_4900_u64, in(reg) 0x4E45_4901_u64, in(reg) 0x4E45_4902_u64,
                 in(reg) 0x4E45_4903_u64);
            *VECTORS.get() = words;
            asm!(
                "movdqa xmm0, [{0}]", "movdqa xmm1, [{0} + 0x10]",
                "movdqa xmm2, [{0} + 0x20]", "movdqa xmm3, [{0} + 0x30]",
                "movdqa xmm4, [{0} + 0x40]", "movdqa xmm5, [{0} + 0x50]",
                "movdqa xmm6, [{0} + 0x60]", "movdqa xmm7, [{0} + 0x70]",
                "movdqa xmm8, [{0} + 0x80]", "movdqa xmm9, [{0} + 0x90]",
                "movdqa xmm10, [{0} + 0xA0]", "movdqa xmm11, [{0} + 0xB0]",
                "movdqa xmm12, [{0} + 0xC0]", "movdqa xmm13, [{0} + 0xD0]",
                "movdqa xmm14, [{0} + 0xE0]", "movdqa xmm15, [{0} + 0xF0]",
                in(reg) VECTORS.get(),
            );
        }
        Self::read()
    }

    /// Whether they are as they were filled.
    pub fn hold(&self) -> bool {
        Self::read() == *self
    }

    /// Reads them.
    pub fn read() -> Self {
        let (d0, d1, d2, d3): (u64, u64, u64, u64);
        // SAFETY: the registers are read, and the vectors stored where there is room for them.
        let vectors = unsafe {
            asm!("mov {0}, dr0", "mov {1}, dr1", "mov {2}, dr2", "mov {3}, dr3",
                 out(reg) d0, out(reg) d1, out(reg) d2, out(reg) d3);
            asm!(
                "movdqa [{0}], xmm0", "movdqa [{0} + 0x10], xmm1",
                "movdqa [{0} + 0x20], xmm2", "movdqa [{0} + 0x30], xmm3",
                "movdqa [{0} + 0x40], xmm4", "movdqa [{0} + 0x50], xmm5",
                "movdqa [{0} + 0x60], xmm6", "movdqa [{0} + 0x70], xmm7",
                "movdqa [{0} + 0x80], xmm8", "movdqa [{0} + 0x90], xmm9",
                "movdqa [{0} + 0xA0], xmm10", "movdqa [{0} + 0xB0], xmm11",
                "movdqa [{0} + 0xC0], xmm12", "movdqa [{0} + 0xD0], xmm13",
                "movdqa [{0} + 0xE0], xmm14", "movdqa [{0} + 0xF0], xmm15",
                in(reg) VECTORS.get(),
            );
            *VECTORS.get()
        };
        Self { msrs: MSRS.map(cpu::rdmsr), debug: [d0, d1, d2, d3], vectors }
    }
}
