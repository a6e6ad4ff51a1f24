// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner's side of a local APIC: what the vCPU's loop calls.

use alloc::sync::Arc;

use host_iface::{Host, Tsc};

use super::{
    ApicInbox, LocalApicBus, VectorSet,
    base::{ApicBase, ApicMode, DEFAULT_APIC_BASE},
    bus::FIRST_LEGAL_VECTOR,
    inbox::{Events, Identity},
    lvt::{LocalVectorTable, LvtEntry, MASKED},
    timer::{ApicTimer, TimerMode},
};
use crate::{DeliveryMode, EoiObserver, GuestPhysAddr, Vector};

/// SVR: software enable.
pub(super) const SVR_ENABLED: u32 = 1 << 8;
/// SVR: suppress EOI broadcasts.
pub(super) const SVR_SUPPRESS_EOI: u32 = 1 << 12;
const SVR_RESET: u32 = 0xFF;

pub(super) const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
pub(super) const ESR_RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
pub(super) const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// What a local APIC is built from.
pub struct LocalApicConfig {
    /// Gives the time.
    pub host: &'static dyn Host,
    /// The bus, which holds this local APIC's inbox.
    pub bus: Arc<LocalApicBus>,
    /// This local APIC's inbox, the same as on the bus.
    pub inbox: Arc<ApicInbox>,
    /// Initial APIC ID.
    pub id: u32,
    /// True for the bootstrap processor's.
    pub bootstrap: bool,
    /// Offers the suppression of EOI broadcasts; the I/O APIC must have an EOI register then.
    pub directed_eoi: bool,
    /// Who hears of the end of level-triggered interrupts.
    pub eoi_observers: Arc<[Arc<dyn EoiObserver>]>,
}

/// A local APIC, owned by its vCPU's thread.
pub struct LocalApic {
    pub(super) config: LocalApicConfig,
    pub(super) base: ApicBase,
    pub(super) irr: VectorSet,
    pub(super) isr: VectorSet,
    pub(super) tmr: VectorSet,
    pub(super) tpr: u8,
    /// Logical APIC ID of xAPIC mode.
    pub(super) logical_id: u8,
    /// Destination format register, bits 31:28.
    pub(super) flat: bool,
    pub(super) svr: u32,
    pub(super) lvt: LocalVectorTable,
    pub(super) icr: u64,
    /// ESR as software reads it.
    pub(super) errors: u32,
    /// Errors since ESR was last written.
    pub(super) new_errors: u32,
    pub(super) timer: ApicTimer,
    pub(super) awaiting_startup: bool,
    /// Registers that software can read may have changed since hardware last got copies.
    pub(super) changed: bool,
}

impl LocalApic {
    /// A local APIC in the state after power-up. All but the bootstrap processor's await a
    /// start-up.
    pub fn new(config: LocalApicConfig) -> Self {
        let apic = Self {
            base: ApicBase::reset(config.bootstrap),
            irr: VectorSet::default(),
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            tpr: 0,
            logical_id: 0,
            flat: true,
            svr: SVR_RESET,
            lvt: LocalVectorTable::RESET,
            icr: 0,
            errors: 0,
            new_errors: 0,
            timer: ApicTimer::new(config.host.tsc_frequency().0),
            awaiting_startup: !config.bootstrap,
            changed: true,
            config,
        };
        apic.publish();
        apic
    }

    /// Puts the registers into the state that a PC's firmware leaves on the bootstrap
    /// processor: enabled, with LINT0 taking interrupts of the 8259A pair (virtual wire mode,
    /// MultiProcessor Specification 1.4, 3.6.2.2) and LINT1 taking NMIs.
    pub fn firmware_defaults(&mut self) {
        const EXTERNAL: u32 = 7 << 8;
        const NMI: u32 = 4 << 8;
        self.svr = SVR_RESET | SVR_ENABLED;
        self.lvt.set(LvtEntry::Lint0, EXTERNAL, true);
        self.lvt.set(LvtEntry::Lint1, NMI, true);
        self.changed = true;
        self.publish();
    }

    /// Moves posted requests into the IRR. Called before [`LocalApic::pending_vector`].
    #[inline]
    pub fn collect(&mut self) {
        self.config.inbox.collect(&mut self.irr, &mut self.tmr);
    }

    /// The interrupt that would be delivered now if the CPU had interrupts enabled: the
    /// highest request, if its class is above the processor priority.
    #[inline]
    pub fn pending_vector(&self) -> Option<Vector> {
        if self.svr & SVR_ENABLED == 0 || !self.base.enabled() {
            return None;
        }
        self.irr.highest().filter(|v| v.0 >> 4 > self.ppr() >> 4)
    }

    /// The highest request whatever the priorities are: what a wait for a lower TPR is for.
    #[inline]
    pub fn highest_request(&self) -> Option<Vector> {
        if self.svr & SVR_ENABLED == 0 || !self.base.enabled() {
            return None;
        }
        self.irr.highest()
    }

    /// True if an interrupt waits in the IRR, whatever the priorities are.
    #[inline]
    pub fn has_request(&self) -> bool {
        !self.irr.is_empty()
    }

    /// The CPU takes `vector`: it moves from IRR to ISR.
    #[inline]
    pub fn accept(&mut self, vector: Vector) {
        self.irr.remove(vector);
        self.isr.insert(vector);
    }

    /// True if the inbox holds requests or events that are not yet collected or taken.
    #[inline]
    pub fn has_mail(&self) -> bool {
        self.config.inbox.has_mail()
    }

    /// Takes a pending NMI.
    pub fn take_nmi(&mut self) -> bool {
        self.take_event(Events::nmi, |e| e.with_nmi(false))
    }

    /// True if an NMI is pending.
    pub fn nmi_pending(&self) -> bool {
        self.config.inbox.events().nmi()
    }

    /// Takes a pending request for an interrupt acknowledge cycle of the external controller
    /// that came as a message, not by LINT0.
    pub fn take_external(&mut self) -> bool {
        self.take_event(Events::external, |e| e.with_external(false))
    }

    /// True if such a request is pending.
    pub fn external_pending(&self) -> bool {
        self.config.inbox.events().external()
    }

    /// Takes a pending INIT. The local APIC is reset then and, unless it is the bootstrap
    /// processor's, awaits a start-up; the caller resets the rest of the CPU (Intel SDM
    /// vol. 3, 9.4.2 and 11.4.7.3).
    pub fn take_init(&mut self) -> bool {
        if !self.take_event(Events::init, |e| e.with_init(false)) {
            return false;
        }
        self.config.inbox.update_events(|e| Some(e.with_nmi(false).with_external(false)));
        self.collect();
        self.reset_registers();
        self.awaiting_startup = !self.config.bootstrap;
        self.publish();
        true
    }

    /// True while the CPU awaits a start-up: it executes nothing.
    pub fn awaiting_startup(&self) -> bool {
        self.awaiting_startup
    }

    /// Takes a pending start-up: its vector, the page number of the entry point. A start-up
    /// that was not awaited is dropped. Never yields one while an INIT is pending, which
    /// comes first.
    pub fn take_startup(&mut self) -> Option<u8> {
        let take = |e: Events| (e.startup() && !e.init()).then(|| e.with_startup(false));
        if !self.config.inbox.events().startup() {
            return None;
        }
        let before = self.config.inbox.update_events(take);
        let taken = before.startup() && !before.init() && self.awaiting_startup;
        if taken {
            self.awaiting_startup = false;
        }
        taken.then(|| before.startup_vector())
    }

    /// True if the interrupt output of the 8259A pair reaches the CPU: by LINT0 in ExtINT
    /// mode, or directly because the local APIC is switched off.
    #[inline]
    pub fn lint0_extint_enabled(&self) -> bool {
        const MODE_AND_MASK: u32 = 7 << 8 | MASKED;
        const EXTERNAL: u32 = 7 << 8;
        !self.base.enabled() || self.lvt.get(LvtEntry::Lint0) & MODE_AND_MASK == EXTERNAL
    }

    /// The interrupt output of the 8259A pair, which is wired to LINT0, becomes asserted: raises
    /// what the entry says, a fixed interrupt or an NMI, as an edge. For ExtINT it does nothing;
    /// there the level counts: see [`LocalApic::lint0_extint_enabled`].
    pub fn raise_lint0(&mut self) {
        let entry = self.lvt.get(LvtEntry::Lint0);
        if !self.base.enabled() || entry & MASKED != 0 {
            return;
        }
        match DeliveryMode::from_bits((entry >> 8 & 7) as u8) {
            Some(DeliveryMode::Fixed) => self.raise_own(entry),
            Some(DeliveryMode::Nmi) => self.config.inbox.post_nmi(),
            _ => {}
        }
    }

    /// Where the registers lie in guest-physical memory: one page, in xAPIC mode only.
    #[inline]
    pub fn mmio_window(&self) -> Option<GuestPhysAddr> {
        (self.base.mode() == ApicMode::XApic).then_some(DEFAULT_APIC_BASE)
    }

    /// True unless the guest switched the local APIC off in IA32_APIC_BASE.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.base.enabled()
    }

    /// APIC ID as the current mode shows it.
    #[inline]
    pub fn id(&self) -> u32 {
        self.config.id
    }

    /// Task priority register.
    #[inline]
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    /// Sets the task priority register.
    #[inline]
    pub fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
        self.config.inbox.publish_priority_class(tpr >> 4);
    }

    /// CR8: the task priority class, 0 to 15.
    #[inline]
    pub fn cr8(&self) -> u64 {
        u64::from(self.tpr >> 4)
    }

    /// Sets the task priority class to the low four bits of `cr8`; the subclass becomes zero.
    #[inline]
    pub fn set_cr8(&mut self, cr8: u64) {
        self.set_tpr((cr8 as u8 & 0xF) << 4);
    }

    /// Processor priority register (Intel SDM vol. 3, 11.8.3.1).
    #[inline]
    pub(super) fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().map_or(0, |v| v.0);
        if self.tpr >> 4 >= in_service >> 4 { self.tpr } else { in_service & 0xF0 }
    }

    /// The end of the interrupt of highest priority in service (Intel SDM vol. 3, 11.8.5).
    #[inline]
    pub fn end_of_interrupt(&mut self) {
        let Some(vector) = self.isr.highest() else { return };
        self.isr.remove(vector);
        self.interrupt_ended(vector);
    }

    /// Tells the I/O APIC of the end of `vector`, which is in service no more.
    pub fn interrupt_ended(&mut self, vector: Vector) {
        if self.tmr.contains(vector) && self.svr & SVR_SUPPRESS_EOI == 0 {
            for observer in self.config.eoi_observers.iter() {
                observer.end_of_interrupt(vector);
            }
        }
    }

    /// The moment at which the timer has to interrupt the CPU, if at all: the owner arms the
    /// host's timer for it. It changes with writes to the timer's registers and with
    /// [`LocalApic::expire`].
    #[inline]
    pub fn next_deadline(&self) -> Option<Tsc> {
        let deadline = self.timer.expiry()?;
        (self.lvt.get(LvtEntry::Timer) & MASKED == 0).then_some(deadline)
    }

    /// Raises the timer interrupt if its moment has come by `now`.
    pub fn expire(&mut self, now: Tsc) {
        let entry = self.lvt.get(LvtEntry::Timer);
        if self.timer.expire(now, TimerMode::of(entry)) && entry & MASKED == 0 {
            self.raise_own(entry);
        }
    }

    /// Tells how far the guest's TSC is ahead of the host's, wrapping. The deadline of
    /// TSC-deadline mode moves with it.
    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.timer.set_tsc_offset(offset, self.config.host.tsc());
    }

    /// Raises the fixed interrupt that an LVT entry names.
    pub(super) fn raise_own(&mut self, entry: u32) {
        let vector = Vector(entry as u8);
        if vector.0 < FIRST_LEGAL_VECTOR {
            self.new_errors |= ESR_RECEIVED_ILLEGAL_VECTOR;
            return;
        }
        self.irr.insert(vector);
        self.tmr.remove(vector);
    }

    /// Notes an error and raises the error interrupt.
    pub(super) fn report_error(&mut self, error: u32) {
        self.new_errors |= error;
        let entry = self.lvt.get(LvtEntry::Error);
        if entry & MASKED == 0 {
            self.raise_own(entry);
        }
    }

    /// The register state after power-up and INIT (Intel SDM vol. 3, 11.4.7.1); IA32_APIC_BASE
    /// and the APIC ID stay.
    pub(super) fn reset_registers(&mut self) {
        self.irr = VectorSet::default();
        self.isr = VectorSet::default();
        self.tmr = VectorSet::default();
        self.set_tpr(0);
        self.logical_id = 0;
        self.flat = true;
        self.svr = SVR_RESET;
        self.lvt = LocalVectorTable::RESET;
        self.icr = 0;
        self.errors = 0;
        self.new_errors = 0;
        self.timer.reset();
        self.changed = true;
    }

    /// Shows senders how to match this local APIC.
    pub(super) fn publish(&self) {
        let identity = Identity::new()
            .with_id(self.config.id)
            .with_logical(self.logical_id)
            .with_flat(self.flat)
            .with_x2apic(self.base.mode() == ApicMode::X2Apic)
            .with_present(self.base.enabled())
            .with_software_enabled(self.svr & SVR_ENABLED != 0);
        self.config.inbox.publish_identity(identity);
    }

    fn take_event(&mut self, is_set: fn(&Events) -> bool, clear: fn(Events) -> Events) -> bool {
        let inbox = &self.config.inbox;
        is_set(&inbox.events()) && is_set(&inbox.update_events(|e| is_set(&e).then(|| clear(e))))
    }
}

/// The delivery modes that a local APIC may send (Intel SDM vol. 3, 11.6.1).
pub(super) const fn is_fixed(delivery: DeliveryMode) -> bool {
    matches!(delivery, DeliveryMode::Fixed | DeliveryMode::LowestPriority)
}
