// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a host kernel may answer in the VMM's place: MSRs, CPUID leaves and hypercalls.
//!
//! Ports and guest-physical ranges are hooked by claiming them on their bus. A hook comes
//! before the library's own policy; taking it away brings that policy back.

use alloc::{sync::Arc, vec::Vec};
use core::ops::RangeInclusive;

use crate::{cpuid::CpuidResult, msr::GeneralProtection};

/// Answers for model-specific registers.
pub trait MsrHook: Send + Sync {
    /// RDMSR of `msr` on vCPU `vcpu`.
    ///
    /// # Errors
    /// [`GeneralProtection`] to have the guest take #GP.
    fn read_msr(&self, vcpu: u32, msr: u32) -> Result<u64, GeneralProtection>;

    /// WRMSR of `value` to `msr` on vCPU `vcpu`.
    ///
    /// # Errors
    /// [`GeneralProtection`] to have the guest take #GP.
    fn write_msr(&self, vcpu: u32, msr: u32, value: u64) -> Result<(), GeneralProtection>;
}

/// Answers for leaves of CPUID.
pub trait CpuidHook: Send + Sync {
    /// CPUID of `leaf` and `subleaf` on vCPU `vcpu`; `result` is the library's own answer.
    fn cpuid(&self, vcpu: u32, leaf: u32, subleaf: u32, result: CpuidResult) -> CpuidResult;
}

/// Answers hypercalls.
pub trait HypercallHook: Send + Sync {
    /// The hypercall of vCPU `vcpu` with these arguments; the result goes to RAX.
    fn hypercall(&self, vcpu: u32, arguments: [u64; 4]) -> u64;
}

/// Hooks by range of numbers; the latest added comes first.
struct Ranges<T: ?Sized>(Vec<(RangeInclusive<u32>, Arc<T>)>);

impl<T: ?Sized> Ranges<T> {
    #[inline]
    fn find(&self, number: u32) -> Option<&Arc<T>> {
        self.0.iter().rev().find(|(range, _)| range.contains(&number)).map(|(_, hook)| hook)
    }

    fn remove(&mut self, range: &RangeInclusive<u32>) -> bool {
        let position = self.0.iter().rposition(|(r, _)| r == range);
        position.map(|p| self.0.remove(p)).is_some()
    }
}

/// All hooks of one VM.
pub struct Hooks {
    msrs: Ranges<dyn MsrHook>,
    cpuid: Ranges<dyn CpuidHook>,
    hypercalls: Ranges<dyn HypercallHook>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { msrs: Ranges(Vec::new()), cpuid: Ranges(Vec::new()), hypercalls: Ranges(Vec::new()) }
    }
}

impl Hooks {
    /// Hooks a range of MSRs.
    pub fn add_msrs(&mut self, range: RangeInclusive<u32>, hook: Arc<dyn MsrHook>) {
        self.msrs.0.push((range, hook));
    }

    /// Hooks a range of CPUID leaves.
    pub fn add_cpuid(&mut self, range: RangeInclusive<u32>, hook: Arc<dyn CpuidHook>) {
        self.cpuid.0.push((range, hook));
    }

    /// Hooks a range of hypercall numbers, as the guest has them in EAX.
    pub fn add_hypercalls(&mut self, range: RangeInclusive<u32>, hook: Arc<dyn HypercallHook>) {
        self.hypercalls.0.push((range, hook));
    }

    /// Takes back the latest hook of exactly these MSRs; false if there is none.
    pub fn remove_msrs(&mut self, range: &RangeInclusive<u32>) -> bool {
        self.msrs.remove(range)
    }

    /// Takes back the latest hook of exactly these leaves; false if there is none.
    pub fn remove_cpuid(&mut self, range: &RangeInclusive<u32>) -> bool {
        self.cpuid.remove(range)
    }

    /// Takes back the latest hook of exactly these hypercalls; false if there is none.
    pub fn remove_hypercalls(&mut self, range: &RangeInclusive<u32>) -> bool {
        self.hypercalls.remove(range)
    }

    /// True if a hook answers for any of these MSRs.
    pub(crate) fn has_msr_in(&self, msrs: &RangeInclusive<u32>) -> bool {
        let meets = |range: &RangeInclusive<u32>| {
            range.start() <= msrs.end() && msrs.start() <= range.end() && !range.is_empty()
        };
        self.msrs.0.iter().any(|(range, _)| meets(range))
    }

    #[inline]
    pub(crate) fn msr(&self, msr: u32) -> Option<&Arc<dyn MsrHook>> {
        self.msrs.find(msr)
    }

    /// True if there are hooks for CPUID.
    #[inline]
    pub(crate) fn has_cpuid(&self) -> bool {
        !self.cpuid.0.is_empty()
    }

    #[inline]
    pub(crate) fn cpuid(&self, leaf: u32) -> Option<&Arc<dyn CpuidHook>> {
        self.cpuid.find(leaf)
    }

    #[inline]
    pub(crate) fn hypercall(&self, number: u32) -> Option<&Arc<dyn HypercallHook>> {
        self.hypercalls.find(number)
    }
}
