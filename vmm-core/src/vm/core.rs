// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the vCPUs of one VM share.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use host_iface::Host;

use super::halt::HaltDetector;
use crate::{
    EndReason, ExternalInterruptSource, HostEventClient, TimerBank, TimerClient, VcpuLink, VmClock,
    VmControl,
    apic::LocalApicBus,
    bus::{MmioBus, PortBus},
    cpuid::CpuidTable,
    hooks::Hooks,
    memory::{GuestMemory, LiveMemory, ShadowWatch},
    paging::{NestedEntries, NestedTables, shadow::ShadowMmu},
};

/// Nested tables, whatever their format.
pub trait SecondLevel: Send + Sync {
    /// Size of all tables in bytes.
    fn bytes(&self) -> u64;
}

impl<F: NestedEntries + Send + Sync> SecondLevel for NestedTables<F> {
    fn bytes(&self) -> u64 {
        self.bytes()
    }
}

/// The tables that the CPUs walk on their way to guest memory.
pub enum MemoryTables {
    /// Nested tables.
    Nested {
        /// Those that map it all.
        memory: Box<dyn SecondLevel>,
        /// What the hardware needs besides, to find accesses to the local APIC's registers.
        apic_window: Option<Box<dyn SecondLevel>>,
    },
    /// Shadow tables.
    Shadow(Box<ShadowMmu>),
}

impl MemoryTables {
    /// Size of all tables in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Nested { memory, apic_window } => {
                memory.bytes() + apic_window.as_ref().map_or(0, |window| window.bytes())
            }
            Self::Shadow(mmu) => mmu.bytes(),
        }
    }
}

/// What the vCPUs of one VM share. Nothing here changes while they run but what is behind
/// atomics or in devices with locks of their own.
pub struct VmCore {
    pub(crate) host: &'static dyn Host,
    pub(crate) memory: GuestMemory,
    pub(crate) tables: MemoryTables,
    pub(crate) ports: PortBus,
    pub(crate) mmio: MmioBus,
    pub(crate) hooks: Hooks,
    pub(crate) cpuid: Arc<CpuidTable>,
    pub(crate) clock: VmClock,
    pub(crate) timers: Arc<TimerBank>,
    pub(crate) control: VmControl,
    pub(crate) apic_bus: Arc<LocalApicBus>,
    pub(crate) external: Option<Arc<dyn ExternalInterruptSource>>,
    pub(crate) host_event_clients: Vec<Arc<dyn HostEventClient>>,
    /// Keeps the clients of timers that nobody else does.
    pub(crate) _timer_clients: Vec<Arc<dyn TimerClient>>,
    pub(crate) links: Vec<Arc<VcpuLink>>,
    pub(crate) halt: HaltDetector,
}

impl VmCore {
    /// Notes that a vCPU waits where only an NMI, INIT or start-up from another vCPU could
    /// reach it. When all do, and no device has a timer running that might send one, the VM
    /// has come to its end.
    pub(crate) fn enter_unwakeable(&self) {
        let mail = || (0..self.links.len()).any(|i| self.has_mail(i));
        let may_be_woken = || self.timers.may_interrupt_guest() || mail();
        if self.halt.begin_wait(self.links.len(), may_be_woken) {
            self.control.end(EndReason::Halted);
        }
    }

    /// Takes the note back; called before the vCPU takes what woke it.
    pub(crate) fn leave_unwakeable(&self) {
        self.halt.end_wait();
    }

    /// The shadow MMU, with shadow paging.
    #[inline]
    pub(crate) fn shadow(&self) -> Option<&ShadowMmu> {
        match &self.tables {
            MemoryTables::Nested { .. } => None,
            MemoryTables::Shadow(mmu) => Some(mmu),
        }
    }

    /// Guest memory, for what is written on behalf of `vcpu`, which is outside the guest.
    #[inline]
    pub(crate) fn live_memory(&self, vcpu: u32) -> LiveMemory<'_> {
        let control = &self.control;
        let watch = self.shadow().map(|mmu| ShadowWatch { mmu, vcpu, control });
        LiveMemory::new(&self.memory, watch)
    }

    fn has_mail(&self, vcpu: usize) -> bool {
        self.apic_bus.inbox(vcpu).is_some_and(|inbox| inbox.has_mail())
    }
}
