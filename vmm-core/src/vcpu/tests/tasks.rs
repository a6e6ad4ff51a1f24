// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits for switches of tasks: where the old task goes on, and what becomes of the event that led
//! to a task gate.

use super::hardware::Registers;
use super::machine::{CODE, Machine, machine};
use crate::{
    EndReason, Event, Exit, GuestPhysAddr, TaskSwitch, TaskSwitchSource, Vector,
    state::{DescriptorTable, Exception, Gpr, Segment, SegmentAttributes, SegmentRegister, rflags},
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
    run(machine, vec![exit], interrupted)
}

/// Goes through `exits`, all with `interrupted` under way.
fn run(
    machine: &mut Machine,
    exits: Vec<Exit>,
    interrupted: Option<Event>,
) -> (EndReason, Vec<Event>) {
    let mut exits = exits.into_iter();
    let end = machine.run(Box::new(move |registers: &mut Registers, _| match exits.next() {
        Some(exit) => {
            registers.interrupted = interrupted;
            exit
        }
        None => Exit::Shutdown,
    }));
    (end, machine.registers().delivered.clone())
}

/// A doubleword that the old task saved.
fn saved(machine: &Machine, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    machine.vm.memory().read(GuestPhysAddr::new(OLD + offset), &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn the_old_task_goes_on_behind_the_instruction() {
    for source in [TaskSwitchSource::Jump, TaskSwitchSource::Call, TaskSwitchSource::Gate] {
        let mut machine = with_tasks(8);
        let (_, delivered) = switch(&mut machine, source, None);
        assert!(delivered.is_empty());
        assert_eq!(machine.registers().rip, ENTRY);
        assert_eq!(u64::from(saved(&machine, 0x20)), CODE + 7);
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
        assert_eq!(u64::from(saved(&machine, 0x20)), CODE);
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

/// A machine whose first task is interpreted, with a task gate for #UD and interrupts.
fn interpreted(code: &[u8]) -> Machine {
    const IDT: u64 = 0x6000;
    let mut machine = with_tasks(8);
    machine.poke(CODE, code);
    for vector in [6, 0x30] {
        machine.poke(IDT + vector * 8, &0x8500_0020_0000_u64.to_le_bytes());
    }
    machine.registers().idtr = DescriptorTable { base: IDT, limit: 0x7FF };
    machine.vcpu().hardware.cannot_enter = |registers| registers.rip != ENTRY;
    machine
}

#[test]
fn the_interpreter_switches_tasks_as_the_cpu_does() {
    let jump: &[u8] = &[0xEA, 0, 0, 0, 0, 0x20, 0];
    let call: &[u8] = &[0x9A, 0, 0, 0, 0, 0x20, 0];
    for (code, length, flags) in [
        (jump, 7, 0),
        (call, 7, 0),
        (&[0xCD, 0x30], 2, 0),
        // UD2: a fault.
        (&[0x0F, 0x0B], 0, rflags::RF),
    ] {
        let mut machine = interpreted(code);
        let (end, delivered) = run(&mut machine, vec![], None);
        assert!(matches!(end, EndReason::TripleFault { .. }), "{end:?}");
        assert!(delivered.is_empty(), "{delivered:?}");
        assert_eq!(machine.registers().rip, ENTRY, "{code:x?}");
        assert_eq!(u64::from(saved(&machine, 0x20)), CODE + length);
        assert_eq!(u64::from(saved(&machine, 0x24)), rflags::FIXED | flags);
    }
}

#[test]
fn a_fault_of_a_switch_for_an_event_that_is_interpreted_combines() {
    // #TS in the new task. The CPU can enter that.
    let mut machine = interpreted(&[0x0F, 0x0B]);
    machine.poke(NEW + 0x4C, &[0x10, 0]);
    let (_, delivered) = run(&mut machine, vec![], None);
    assert_eq!(delivered, [Event::Exception(Exception::with_code(10, 0x11))]);
    // A task that is busy: #GP in the old one, for which there is no gate.
    let mut machine = interpreted(&[0x0F, 0x0B]);
    machine.poke(GDT + 0x25, &[0x8B]);
    let (end, _) = run(&mut machine, vec![], None);
    assert_eq!(end, EndReason::TripleFault { vcpu: 0, rip: CODE });
}

#[test]
fn a_mode_without_tasks_ends_the_vm() {
    let mut machine = with_tasks(8);
    machine.registers().control.cr0 = 0;
    let (end, _) = switch(&mut machine, TaskSwitchSource::Jump, None);
    assert!(matches!(end, EndReason::EmulationFailure { vcpu: 0, .. }), "{end:?}");
}
