// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers of SYSCALL and SWAPGS, which no VMCS field holds.
//!
//! The host executes neither instruction while it has a vCPU loaded, so the guest's values
//! stay in the registers for that long, and the guest accesses them without exits.

use x86::msr::{IA32_CSTAR, IA32_FMASK, IA32_KERNEL_GSBASE, IA32_LSTAR, IA32_STAR, rdmsr, wrmsr};

/// The registers.
pub const SWITCHED: [u32; 5] = [IA32_STAR, IA32_LSTAR, IA32_CSTAR, IA32_FMASK, IA32_KERNEL_GSBASE];

/// The values of one vCPU, and while it is loaded those of the host.
#[derive(Default)]
pub struct SwitchedMsrs {
    values: [u64; SWITCHED.len()],
    is_loaded: bool,
}

impl SwitchedMsrs {
    /// Brings the guest's values into the registers of the calling CPU.
    pub fn load(&mut self) {
        self.exchange();
        self.is_loaded = true;
    }

    /// Takes the guest's values off the calling CPU, where they are loaded, and brings the
    /// host's back.
    pub fn put(&mut self) {
        self.exchange();
        self.is_loaded = false;
    }

    fn exchange(&mut self) {
        for (msr, value) in SWITCHED.into_iter().zip(&mut self.values) {
            // SAFETY: the registers exist on every CPU with long mode. They matter to nobody
            // while the host runs kernel code, and the values were in them before, or are
            // zero, or were checked for the guest.
            unsafe {
                let other = rdmsr(msr);
                if other != *value {
                    wrmsr(msr, *value);
                }
                *value = other;
            }
        }
    }

    /// The guest's value of `msr`; zero if it is not one of these.
    pub fn get(&self, msr: u32) -> u64 {
        match SWITCHED.iter().position(|other| *other == msr) {
            // SAFETY: the register exists.
            Some(_) if self.is_loaded => unsafe { rdmsr(msr) },
            Some(index) => self.values[index],
            None => 0,
        }
    }

    /// Sets the guest's value of `msr`, which was checked before.
    pub fn set(&mut self, msr: u32, value: u64) {
        match SWITCHED.iter().position(|other| *other == msr) {
            // SAFETY: the register exists and takes the value: addresses are canonical, and no
            // reserved bit is set.
            Some(_) if self.is_loaded => unsafe { wrmsr(msr, value) },
            Some(index) => self.values[index] = value,
            None => {}
        }
    }
}
