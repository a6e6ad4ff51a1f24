// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits for switches of tasks: where the old task goes on, and what becomes of the event that led
//! to a task gate.

use super::hardware::Registers;
use super::machine::{CODE, Machine, machine};
use crate::{
    EndReason, Event, Exit, GuestPhysAddr, TaskSwitch, TaskSwitchSource, Vector,
    state::{DescriptorTable, Exception, Gpr, Segment, SegmentAttributes, SegmentRegister},
};

const GDT: u64 = 0x3000;
const OLD: u64 = 0x4000;
const NEW: u64 = 0x4100;
const ENTRY: u64 = 0x1800;
const TOP: u64 = 0x5000;

/// A machine with a task to go to, whose code selector is `code`.
fn with_tasks(code: u16) -> Machine {
    let mut machine = machine();
    let descriptors: [u64; 5] =
        [0, 0x00CF_9A00_0000_FFFF, 0x00CF_9200_0000_FFFF, 0x8B00_4000_0067, 0x8900_4100_0067];
    for (at, descriptor) in (GDT..).step_by(8).zip(descriptors) {
        machine.poke(at, &descriptor.to_le_bytes());
    }
    machine.poke(NEW + 0x20, &(ENTRY as u32).to_le_bytes());
    machine.poke(NEW + 0x38, &(TOP as u32).to_le_bytes());
    for (offset, selector) in [(0x48, 0x10), (0x4C, code), (0x50, 0x10), (0x54, 0x10)] {
        machine.poke(NEW + offset, &selector.to_le_bytes());
    }
    // jmp 0x20:0.
    machine.poke(CODE, &[0xEA, 0, 0, 0, 0, 0x20, 0]);
    let registers = machine.registers();
    registers.gdtr = DescriptorTable { base: GDT, limit: 0x27 };
    let attributes = SegmentAttributes::new().with_kind(11).with_present(true);
    *registers.segment_mut(SegmentRegister::Tr) =
        Segment { selector: 0x18, limit: 0x67, base: OLD, attributes };
    machine
}

/// Has a task switch exit, with `interrupted` under way; the events that the guest gets then.
fn switch(
    machine: &mut Machine,
    source: TaskSwitchSource,
    interrupted: Option<Event>,
) -> (EndReason, Vec<Event>) {
    let error_code = match interrupted {
        Some(Event::Exception(exception)) => exception.error_code,
        _ => None,
    };
    let exit = Exit::TaskSwitch(TaskSwitch { selector: 0x20, source, error_code });
    let mut exits = vec![exit].into_iter();
    let end = machine.run(Box::new(move |registers: &mut Registers, _| match exits.next() {
        Some(exit) => {
            registers.interrupted = interrupted;
            exit
        }
        None => Exit::Shutdown,
    }));
    (end, machine.registers().delivered.clone())
}

fn saved_ip(machine: &Machine) -> u32 {
    let mut bytes = [0; 4];
    machine.vm.memory().read(GuestPhysAddr::new(OLD + 0x20), &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn the_old_task_goes_on_behind_the_instruction() {
    for source in [TaskSwitchSource::Jump, TaskSwitchSource::Call, TaskSwitchSource::Gate] {
        let mut machine = with_tasks(8);
        let (_, delivered) = switch(&mut machine, source, None);
        assert!(delivered.is_empty());
        assert_eq!(machine.registers().rip, ENTRY);
        assert_eq!(u64::from(saved_ip(&machine)), CODE + 7);
    }
}

#[test]
fn an_event_is_consumed_and_comes_before_its_instruction() {
    let interrupt = Event::Interrupt(Vector(0x30));
    let fault = Event::Exception(Exception::GENERAL_PROTECTION);
    for (event, pushed) in [(interrupt, 0), (Event::Nmi, 0), (fault, 4)] {
        let mut machine = with_tasks(8);
        let (_, delivered) = switch(&mut machine, TaskSwitchSource::Gate, Some(event));
        assert!(delivered.is_empty(), "{delivered:?}");
        assert_eq!(machine.registers().rip, ENTRY);
        assert_eq!(u64::from(saved_ip(&machine)), CODE);
        assert_eq!(machine.gpr(Gpr::Rsp), TOP - pushed);
        assert_eq!(machine.registers().nmi_blocked, event == Event::Nmi);
    }
}

#[test]
fn a_fault_in_the_new_task_is_delivered_there_and_combines() {
    let invalid = |code| Event::Exception(Exception::with_code(10, code));
    let mut machine = with_tasks(0x10);
    let (_, delivered) = switch(&mut machine, TaskSwitchSource::Jump, None);
    assert_eq!((delivered, machine.registers().rip), (vec![invalid(0x10)], ENTRY));
    let mut machine = with_tasks(0x10);
    let interrupt = Some(Event::Interrupt(Vector(0x30)));
    let (_, delivered) = switch(&mut machine, TaskSwitchSource::Gate, interrupt);
    assert_eq!(delivered, [invalid(0x11)]);
    let fault = Some(Event::Exception(Exception::GENERAL_PROTECTION));
    let mut machine = with_tasks(0x10);
    let (_, delivered) = switch(&mut machine, TaskSwitchSource::Gate, fault);
    assert_eq!(delivered, [Event::Exception(Exception::with_code(8, 0))]);
}

#[test]
fn a_mode_without_tasks_ends_the_vm() {
    let mut machine = with_tasks(8);
    machine.registers().control.cr0 = 0;
    let (end, _) = switch(&mut machine, TaskSwitchSource::Jump, None);
    assert!(matches!(end, EndReason::EmulationFailure { vcpu: 0, .. }), "{end:?}");
}
