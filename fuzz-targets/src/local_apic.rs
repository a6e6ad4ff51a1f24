// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two local APICs on a bus: any order of register accesses, messages and time keeps their
//! invariants.

use std::sync::Arc;

use crate::{host::host, width::Width};
use arbitrary::{Arbitrary, Unstructured};
use host_iface::Host;
use vmm_core::{
    Doorbell, Vector,
    apic::{ApicInbox, BusMember, LocalApic, LocalApicBus, LocalApicConfig},
};

#[derive(Debug, Arbitrary)]
enum Step {
    ReadMmio { offset: u16, width: Width },
    WriteMmio { offset: u16, width: Width, value: u64 },
    ReadMsr { msr: u8 },
    WriteMsr { msr: u8, value: u64 },
    WriteBase { value: u64 },
    TaskPriority { value: u8 },
    Post { vector: u8, level: bool },
    Accept,
    EndOfInterrupt,
    TakeMessages,
    PassTime { ticks: u32 },
    SaveAndRestore,
}

/// A local APIC and the end of it that others write to.
struct Member {
    apic: LocalApic,
    inbox: Arc<ApicInbox>,
}

fn two_apics() -> [Member; 2] {
    let inboxes = [(); 2].map(|()| Arc::new(ApicInbox::new()));
    let member = |inbox: &Arc<ApicInbox>| BusMember {
        inbox: inbox.clone(),
        doorbell: Doorbell::disconnected(),
    };
    let bus = LocalApicBus::new(inboxes.iter().map(member).collect());
    let mut id = 0;
    inboxes.map(|inbox| {
        let apic = LocalApic::new(LocalApicConfig {
            host: host(),
            bus: bus.clone(),
            inbox: inbox.clone(),
            id,
            bootstrap: id == 0,
            directed_eoi: true,
            eoi_observers: Arc::new([]),
        });
        id += 1;
        Member { apic, inbox }
    })
}

fn step(member: &mut Member, step: &Step) {
    let apic = &mut member.apic;
    match *step {
        Step::ReadMmio { offset, width } => {
            apic.read_mmio(u64::from(offset) & 0xFFF, width.into());
        }
        Step::WriteMmio { offset, width, value } => {
            apic.write_mmio(u64::from(offset) & 0xFFF, width.into(), value);
        }
        Step::ReadMsr { msr } => drop(apic.read_msr(0x800 + u32::from(msr))),
        Step::WriteMsr { msr, value } => drop(apic.write_msr(0x800 + u32::from(msr), value)),
        Step::WriteBase { value } => drop(apic.write_msr(0x1B, value)),
        Step::TaskPriority { value } => apic.set_cr8(u64::from(value & 0xF)),
        Step::Post { vector, level } => {
            // Messages with reserved vectors are refused before they come here.
            if vector >= 16 {
                member.inbox.post(Vector(vector), level);
            }
        }
        Step::Accept => {
            if let Some(vector) = apic.pending_vector() {
                assert!(vector.0 >> 4 > apic.tpr() >> 4, "below the task priority");
                apic.accept(vector);
            }
        }
        Step::EndOfInterrupt => apic.end_of_interrupt(),
        Step::TakeMessages => {
            apic.take_nmi();
            apic.take_init();
            apic.take_startup();
            apic.take_external();
        }
        Step::PassTime { ticks } => {
            host().advance(ticks.into());
            apic.expire(host().tsc());
        }
        Step::SaveAndRestore => {
            let saved = apic.save();
            apic.restore(&saved);
            assert_eq!(apic.save(), saved, "state is lost");
        }
    }
}

/// Takes the steps that `input` says.
pub fn run(input: &[u8]) {
    let Ok(steps) = Vec::<(bool, Step)>::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    let mut members = two_apics();
    for member in &mut members {
        member.apic.firmware_defaults();
    }
    for (second, one) in &steps {
        let member = &mut members[usize::from(*second)];
        step(member, one);
        member.apic.collect();
        if let Some(at) = member.apic.mmio_window() {
            assert_eq!(at.as_u64() & 0xFFF, 0);
        }
    }
}
