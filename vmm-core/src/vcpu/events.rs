// SPDX-License-Identifier: MIT OR Apache-2.0
//! Delivering events to the guest, so that none is lost and none comes twice.

use super::Vcpu;
use crate::{
    EndReason, Event,
    backend::VcpuBackend,
    state::{Exception, Vector, cr0},
};

/// Events that wait for the next entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PendingEvents {
    /// An event whose delivery the last exit cut short.
    pub interrupted: Option<Event>,
    /// An exception that the VMM raises for the instruction that exited.
    exception: Option<Exception>,
    /// An NMI.
    pub nmi: bool,
    /// The 8259A pair asserts its output, and it leads here.
    pub external: bool,
    /// A message of the I/O APIC said so.
    external_message: bool,
    /// LINT0 let it through when it was last looked at.
    lint0_open: bool,
}

impl PendingEvents {
    /// Raises `exception` for the current instruction.
    pub fn raise(&mut self, exception: Exception) {
        self.exception = Some(exception);
    }

    /// An exception or an interrupted event waits.
    pub fn has_event(&self) -> bool {
        self.exception.is_some() || self.interrupted.is_some()
    }

    /// The event that has to be delivered before any other.
    fn take_due(&mut self) -> Due {
        let exception = self.exception.take();
        match (self.interrupted.take(), exception) {
            (Some(Event::Exception(first)), Some(second)) => combine(first, second),
            // An exception during the delivery of anything else takes its place: the
            // hardware has lost that event, too (AMD APM vol. 2, 8.2.9 and 8.5).
            (_, Some(second)) => Due::Event(Event::Exception(second)),
            (Some(interrupted), None) => Due::Event(interrupted),
            (None, None) => Due::Nothing,
        }
    }
}

const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;

/// What comes before any other event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Nothing,
    Event(Event),
    /// A fault during the delivery of a double fault.
    Shutdown,
}

/// What results from `second` during the delivery of `first` (AMD APM vol. 2, table 8-4).
fn combine(first: Exception, second: Exception) -> Due {
    let contributory = |e: Exception| matches!(e.vector.0, 0 | 10..=13);
    let page_fault = |e: Exception| e.vector.0 == PAGE_FAULT;
    let serious = contributory(second) || page_fault(second);
    if first.vector.0 == DOUBLE_FAULT && serious {
        return Due::Shutdown;
    }
    let double = contributory(first) && contributory(second) || page_fault(first) && serious;
    let vector = Vector(DOUBLE_FAULT);
    let double_fault = Exception { vector, error_code: Some(0), fault_address: None };
    Due::Event(Event::Exception(if double { double_fault } else { second }))
}

impl<V: VcpuBackend> Vcpu<V> {
    /// Chooses what is delivered at the next entry, and asks for the windows that the rest
    /// needs.
    pub(super) fn prepare_events(&mut self) {
        self.choose_apic_role();
        let mut free = true;
        let raised = self.pending.exception.is_some();
        match self.pending.take_due() {
            Due::Nothing => {}
            Due::Event(event) => {
                if let (true, Event::Exception(exception)) = (raised, event) {
                    self.statistics.count_exception(exception.vector);
                }
                self.deliver(event);
                free = false;
            }
            // The gate stays closed now.
            Due::Shutdown => {
                let rip = self.hardware.rip();
                return self.end(EndReason::TripleFault { vcpu: self.index, rip });
            }
        }
        let vector = self.deliverable_vector();
        let waits = self.pending.nmi || self.pending.external || vector.is_some();
        if free && waits {
            self.deliver_from_outside(vector);
        }
        self.hand_over_apic();
        let waiting = waits && self.interrupt_waits();
        self.hardware.request_interrupt_window(waiting);
        self.hardware.watch_task_priority(self.watched_class());
        self.hardware.request_nmi_window(self.pending.nmi);
        self.settled = !waiting && !self.pending.nmi && self.may_settle();
    }

    /// False where every entry needs preparations of its own.
    fn may_settle(&self) -> bool {
        #[cfg(feature = "fault-injection")]
        if self.entry_fault.is_some() {
            return false;
        }
        self.core.shadow().is_none()
    }

    /// Has the hardware deliver `event` at the next entry; where there will be none, delivers
    /// it now.
    fn inject(&mut self, event: Event) {
        if self.hardware.can_enter() {
            self.hardware.inject(event);
        } else {
            self.deliver_by_emulation(event);
        }
    }

    /// True if the VMM has an interrupt to deliver that the priorities let through.
    pub(super) fn interrupt_waits(&self) -> bool {
        self.deliverable_vector().is_some() || self.pending.external
    }

    /// Delivers an NMI or an interrupt if the guest can take it now. `vector` is the local APIC's.
    fn deliver_from_outside(&mut self, vector: Option<Vector>) {
        let state = self.hardware.interruptibility();
        if state.in_shadow {
            return;
        }
        if self.pending.nmi && !state.nmi_blocked {
            self.pending.nmi = false;
            self.statistics.nmis += 1;
            self.inject(Event::Nmi);
        } else if state.interrupts_enabled {
            self.deliver_interrupt(vector);
        }
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Exception(exception) => {
                // Real mode pushes no error codes (AMD APM vol. 2, 8.2).
                let real_mode = self.hardware.control_registers().cr0 & cr0::PE == 0;
                let error_code = exception.error_code.filter(|_| !real_mode);
                self.inject(Event::Exception(Exception { error_code, ..exception }));
            }
            other => self.inject(other),
        }
    }

    /// Delivers the interrupt of highest priority, if there is any.
    fn deliver_interrupt(&mut self, vector: Option<Vector>) {
        let vector = match vector {
            Some(vector) => {
                self.apic.accept(vector);
                Some(vector)
            }
            None if self.pending.external => self.acknowledge_external(),
            None => None,
        };
        if let Some(vector) = vector {
            self.statistics.count_interrupt(vector);
            self.inject(Event::Interrupt(vector));
        }
    }

    /// Asks the 8259A pair for a vector, and whether there is another.
    fn acknowledge_external(&mut self) -> Option<Vector> {
        let vector = self.core.external.as_ref().and_then(|source| source.acknowledge());
        self.pending.external_message = false;
        self.look_at_external_source();
        vector
    }

    /// Notes whether the 8259A pair asserts its output to this vCPU.
    pub(super) fn look_at_external_source(&mut self) {
        // The output is asserted before a message tells of it. So what is asserted is looked at
        // behind the message, or the message would be taken in vain.
        let message = self.apic.take_external() || self.pending.external_message;
        let source = self.core.external.as_ref();
        let asserted = source.is_some_and(|source| source.pending());
        if source.is_some_and(|source| source.take_rise()) {
            self.apic.raise_lint0();
            self.pending.nmi |= self.apic.take_nmi();
        }
        self.pending.lint0_open = self.apic.lint0_extint_enabled();
        self.pending.external_message = asserted && message;
        self.pending.external = asserted && (self.pending.lint0_open || message);
    }

    /// Looks again when the guest opened or closed the way through LINT0: the source itself
    /// only tells of changes of its own.
    #[inline]
    pub(super) fn follow_lint0(&mut self) {
        if self.apic.lint0_extint_enabled() != self.pending.lint0_open {
            self.look_at_external_source();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(interrupted: Option<Event>, exception: Option<Exception>) -> PendingEvents {
        PendingEvents { interrupted, exception, ..PendingEvents::default() }
    }

    #[test]
    fn an_interrupted_event_is_delivered_again() {
        let interrupt = Event::Interrupt(Vector(0x30));
        assert_eq!(pending(Some(interrupt), None).take_due(), Due::Event(interrupt));
        assert_eq!(pending(None, None).take_due(), Due::Nothing);
    }

    #[test]
    fn faults_during_delivery_combine_as_the_manual_says() {
        let gp = Exception::GENERAL_PROTECTION;
        let pf = Exception::page_fault(0x1000, 0);
        let ud = Exception::INVALID_OPCODE;
        let due = |first, second| pending(Some(Event::Exception(first)), Some(second)).take_due();
        let double = |first, second| match due(first, second) {
            Due::Event(Event::Exception(e)) => e.vector.0 == DOUBLE_FAULT,
            _ => false,
        };
        assert!(double(gp, gp) && double(pf, gp) && double(pf, pf));
        assert!(!double(gp, pf) && !double(ud, gp) && !double(pf, ud));
        let interrupt = Some(Event::Interrupt(Vector(0x30)));
        let page_fault = Due::Event(Event::Exception(pf));
        assert_eq!(pending(interrupt, Some(pf)).take_due(), page_fault);
        let df = Exception { vector: Vector(DOUBLE_FAULT), ..gp };
        assert_eq!((due(df, gp), due(df, pf)), (Due::Shutdown, Due::Shutdown));
    }
}
