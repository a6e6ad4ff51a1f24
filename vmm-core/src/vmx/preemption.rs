// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMX-preemption timer, which ends an entry at a moment (Intel SDM vol. 3, 25.5.1).
//!
//! It counts down while the guest runs and saves what is left at exits. Outside the guest it
//! stands still, so that it comes to lag behind by the time spent there. It is set anew only
//! when it lags too far: an exit costs no access for its sake, save one in many.

use host_iface::Tsc;
use x86::vmx::vmcs::control::{ExitControls, PinbasedControls};

use super::{field::Field, vmcs::Vmcs};
use crate::backend::EntryGate;

/// The timer of one vCPU.
pub struct PreemptionTimer {
    /// Ticks of the time-stamp counter in one of the timer, as a power of two.
    shift: u32,
    /// What it is set to end.
    deadline: Option<Tsc>,
    /// Ticks by which it lags.
    lag: u64,
}

/// It may lag by so many ticks of the time-stamp counter: the time of a few exits, and no more
/// than it takes to reach a host by an interrupt of its own timer.
const TOLERANCE: u64 = 8192;

impl PreemptionTimer {
    /// A timer that is off.
    pub fn new(shift: u32) -> Self {
        Self { shift, deadline: None, lag: 0 }
    }

    /// Takes note of the time outside up to the last question to `gate`.
    #[inline]
    pub fn stand_still(&mut self, gate: &EntryGate<'_>) {
        self.lag = self.lag.saturating_add(gate.ticks_outside());
    }

    /// Sets the fields of `vmcs` for the entry that `gate` has just let through.
    #[inline]
    pub fn prepare(&mut self, vmcs: &mut Vmcs, gate: &EntryGate<'_>) {
        self.stand_still(gate);
        let wanted = gate.hardware_deadline();
        if wanted == self.deadline && (wanted.is_none() || self.lag <= TOLERANCE) {
            return;
        }
        if wanted.is_some() != self.deadline.is_some() {
            switch(vmcs, wanted.is_some());
        }
        self.deadline = wanted;
        self.lag = 0;
        if let Some(deadline) = wanted {
            let left = deadline.0.saturating_sub(gate.asked_at().0);
            // The CPU has counted it down since.
            vmcs.forget(Field::PreemptionTimer);
            vmcs.write(Field::PreemptionTimer, self.count(left));
        }
    }

    /// What is left in the timer is of no use: it has expired, or the vCPU leaves the CPU.
    pub fn distrust(&mut self) {
        self.lag = u64::MAX;
    }

    /// The count that takes at least `ticks`. A deadline too far away is met in stages.
    fn count(&self, ticks: u64) -> u64 {
        // The first count may be cut short by as much as a whole one.
        let whole = ticks.div_ceil(1 << self.shift).saturating_add(1);
        whole.min(u32::MAX.into())
    }
}

/// Both controls go together: entry demands that nothing is saved of a timer that is off.
fn switch(vmcs: &mut Vmcs, on: bool) {
    let timer = u64::from(PinbasedControls::VMX_PREEMPTION_TIMER.bits());
    let saving = u64::from(ExitControls::SAVE_VMX_PREEMPTION_TIMER.bits());
    for (field, bit) in [(Field::PinControls, timer), (Field::ExitControls, saving)] {
        let old = vmcs.read(field);
        vmcs.write(field, if on { old | bit } else { old & !bit });
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicBool;

    use host_mock::MockHost;

    use super::*;
    use crate::vmx::instruction;

    struct Bench {
        host: &'static MockHost,
        vmcs: Vmcs,
        timer: PreemptionTimer,
        left_at: Tsc,
    }

    impl Bench {
        fn new() -> Self {
            let host = MockHost::leak(1);
            let mut vmcs = Vmcs::new(host, 1, !0).unwrap();
            // SAFETY: in tests the instructions work on ordinary memory.
            assert!(unsafe { vmcs.load() });
            vmcs.write_back();
            let left_at = host_iface::Host::tsc(host);
            Self { host, vmcs, timer: PreemptionTimer::new(5), left_at }
        }

        /// Prepares an entry after `ticks` outside; the number of accesses that it took.
        fn enter(&mut self, deadline: Option<Tsc>, ticks: u64) -> u64 {
            self.host.advance(ticks);
            let attention = AtomicBool::new(false);
            let mut gate = EntryGate::new(self.host, &attention, None)
                .with_hardware_deadline(deadline, self.left_at);
            assert!(gate.opens());
            let before = self.vmcs.accesses();
            self.timer.prepare(&mut self.vmcs, &gate);
            self.vmcs.write_back();
            self.left_at = gate.asked_at();
            self.vmcs.guest_exited();
            self.vmcs.accesses() - before
        }

        fn after(&self, ticks: u64) -> Option<Tsc> {
            Some(Tsc(host_iface::Host::tsc(self.host).0 + ticks))
        }
    }

    fn hardware(field: Field) -> u64 {
        // SAFETY: as above.
        unsafe { instruction::vmread(field.encoding()) }.unwrap()
    }

    #[test]
    fn costs_nothing_while_it_is_off_or_keeps_up() {
        let mut bench = Bench::new();
        assert_eq!(bench.enter(None, 100), 0);
        let deadline = bench.after(1_000_000);
        assert_eq!(bench.enter(deadline, 0), 3, "two controls and the count");
        assert_eq!(hardware(Field::PreemptionTimer), 1_000_000 / 32 + 1);
        assert_eq!(hardware(Field::PinControls), 1 << 6);
        assert_eq!(hardware(Field::ExitControls), 1 << 22);
        for _ in 0..8 {
            assert_eq!(bench.enter(deadline, 1000), 0);
        }
        assert_eq!(bench.enter(deadline, 1000), 1, "it lags by more than is allowed");
        assert_eq!(hardware(Field::PreemptionTimer), 991_000_u64.div_ceil(32) + 1);
        assert_eq!(bench.enter(deadline, 1000), 0);
        assert_eq!(bench.enter(None, 0), 2);
        assert_eq!((hardware(Field::PinControls), hardware(Field::ExitControls)), (0, 0));
    }

    #[test]
    fn follows_a_deadline_that_moves_and_survives_a_change_of_cpu() {
        let mut bench = Bench::new();
        bench.enter(bench.after(1_000_000), 0);
        let sooner = bench.after(10_000);
        assert_eq!(bench.enter(sooner, 0), 1);
        assert_eq!(hardware(Field::PreemptionTimer), 10_000_u64.div_ceil(32) + 1);
        bench.timer.distrust();
        assert_eq!(bench.enter(sooner, 0), 1, "the same count, but the CPU may have changed it");
    }

    #[test]
    fn never_comes_early_and_never_wraps() {
        let timer = PreemptionTimer::new(5);
        for ticks in [0, 1, 31, 32, 33, 1_000_003] {
            let count = timer.count(ticks);
            assert!((count - 1) * 32 >= ticks, "{ticks}");
        }
        assert_eq!(timer.count(u64::MAX), u64::from(u32::MAX));
    }
}
