// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices and hooks that note what is asked of them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use spin::Once;

use crate::{
    AccessWidth, ExternalInterruptSource, MmioDevice, PortDevice, TimerClient, Vector, VmControl,
    VmInstant,
    apic::ApicInbox,
    cpuid::CpuidResult,
    hooks::{CpuidHook, HypercallHook, MsrHook},
    msr::GeneralProtection,
};

/// One write: where, how wide, what.
pub type Write = (u64, AccessWidth, u64);

/// A device whose reads give the low bits of a pattern. It does not answer at offset 8.
#[derive(Default)]
pub struct Recorder {
    pub writes: Mutex<Vec<Write>>,
}

/// What reads give.
pub const PATTERN: u64 = 0x8877_6655_4433_2211;

impl Recorder {
    pub fn take(&self) -> Vec<Write> {
        std::mem::take(&mut self.writes.lock().unwrap())
    }
}

impl PortDevice for Recorder {
    fn name(&self) -> &str {
        "port recorder"
    }
    fn widest(&self) -> AccessWidth {
        AccessWidth::Dword
    }
    fn read_port(&self, offset: u16, _: AccessWidth) -> Option<u32> {
        (offset != 8).then_some(PATTERN as u32)
    }
    fn write_port(&self, offset: u16, width: AccessWidth, value: u32) -> bool {
        self.writes.lock().unwrap().push((offset.into(), width, value.into()));
        offset != 8
    }
}

impl MmioDevice for Recorder {
    fn name(&self) -> &str {
        "memory recorder"
    }
    fn read_mmio(&self, offset: u64, _: AccessWidth) -> Option<u64> {
        (offset != 8).then_some(PATTERN)
    }
    fn write_mmio(&self, offset: u64, width: AccessWidth, value: u64) -> bool {
        self.writes.lock().unwrap().push((offset, width, value));
        offset != 8
    }
}

/// Answers whatever it is asked, and notes MSR writes.
#[derive(Default)]
pub struct Hook {
    pub writes: Mutex<Vec<(u32, u32, u64)>>,
}

/// The MSR that the hook refuses.
pub const REFUSED_MSR: u32 = 0x4000_00FF;

impl MsrHook for Hook {
    fn read_msr(&self, vcpu: u32, msr: u32) -> Result<u64, GeneralProtection> {
        if msr == REFUSED_MSR {
            Err(GeneralProtection)
        } else {
            Ok(u64::from(msr) << 32 | u64::from(vcpu))
        }
    }
    fn write_msr(&self, vcpu: u32, msr: u32, value: u64) -> Result<(), GeneralProtection> {
        self.writes.lock().unwrap().push((vcpu, msr, value));
        if msr == REFUSED_MSR { Err(GeneralProtection) } else { Ok(()) }
    }
}

impl CpuidHook for Hook {
    fn cpuid(&self, vcpu: u32, leaf: u32, subleaf: u32, result: CpuidResult) -> CpuidResult {
        CpuidResult { eax: leaf, ebx: subleaf, ecx: vcpu, ..result }
    }
}

impl HypercallHook for Hook {
    fn hypercall(&self, _: u32, arguments: [u64; 4]) -> u64 {
        arguments.into_iter().fold(0, |sum, argument| sum * 10 + argument)
    }
}

/// An 8259A pair that asks for interrupts of one vector.
#[derive(Default)]
pub struct Controller {
    requests: AtomicU32,
    risen: AtomicBool,
}

impl Controller {
    /// Has it ask for so many interrupts.
    pub fn ask(&self, requests: u32) {
        let before = self.requests.swap(requests, Ordering::SeqCst);
        if before == 0 && requests > 0 {
            self.risen.store(true, Ordering::SeqCst);
        }
    }

    /// Interrupts that it still asks for.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The controller's vector.
pub const EXTERNAL_VECTOR: Vector = Vector(0x21);

impl ExternalInterruptSource for Controller {
    fn pending(&self) -> bool {
        self.requests() > 0
    }
    fn take_rise(&self) -> bool {
        self.risen.swap(false, Ordering::SeqCst)
    }
    fn acknowledge(&self) -> Option<Vector> {
        let one_less = |n: u32| n.checked_sub(1);
        self.requests
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
            .then_some(EXTERNAL_VECTOR)
    }
}

/// An 8259A pair that another CPU makes ask at the moment when it has just been looked at. The
/// I/O APIC tells the first local APIC of it.
#[derive(Default)]
pub struct Late {
    pub inbox: Once<Arc<ApicInbox>>,
    asks: AtomicBool,
}

impl ExternalInterruptSource for Late {
    fn pending(&self) -> bool {
        let before = self.asks.swap(true, Ordering::SeqCst);
        if let Some(inbox) = self.inbox.get().filter(|_| !before) {
            inbox.post_external();
        }
        before
    }
    fn take_rise(&self) -> bool {
        false
    }
    fn acknowledge(&self) -> Option<Vector> {
        Some(EXTERNAL_VECTOR)
    }
}

/// Ends the VM when its moment has come, as a host's time limit does.
pub struct TimeLimit(pub VmControl);

impl TimerClient for TimeLimit {
    fn timer_expired(&self, _: VmInstant) {
        self.0.end(crate::EndReason::Stopped("time limit"));
    }
}

/// Notes when it was called.
#[derive(Default)]
pub struct Alarm {
    pub calls: Mutex<Vec<VmInstant>>,
}

impl TimerClient for Alarm {
    fn timer_expired(&self, now: VmInstant) {
        self.calls.lock().unwrap().push(now);
    }
}
