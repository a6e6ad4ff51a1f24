// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switches of tasks.

use super::far::{
    ACCESSED, CODE_32, DATA_32, DONE, GDT, PRESENT, READ_ONLY, USER_CODE, protected, segment,
};
use super::machine::{DATA, Machine};
use crate::emulate::{Departure, Outcome, TaskSwitchEnd, switch_task};
use crate::exit::{TaskSwitch, TaskSwitchSource};
use crate::paging::walk::PhysicalMemory;
use crate::state::{
    DescriptorTable, Exception, Gpr, InterruptShadow, Segment, SegmentAttributes, SegmentRegister,
    cr0, cr4, rflags,
};

const OLD: u64 = DATA;
const NEW: u64 = DATA + 0x100;
const LOCAL_TABLE: u64 = DATA + 0x200;

/// Selectors in the GDT of [`machine`].
const CODE: u16 = 0x08;
const STACK: u16 = 0x10;
const OLD_TASK: u16 = 0x18;
const NEW_TASK: u16 = 0x20;
const LDT: u16 = 0x28;
const USER: u16 = 0x33;
const USER_STACK: u16 = 0x3B;

const USER_DATA: u64 = 0x00CF_F200_0000_FFFF;
const LDT_DESCRIPTOR: u64 = 0x0000_8200_2200_000F;
const BUSY: u64 = 1 << 41;

const RETURN_TO: u64 = 0x1234;
const ENTRY: u64 = 0x1800;
const TOP: u64 = DATA + 0x800;

/// A TSS of this format (type of an available one) at `base`.
fn task(base: u64, format: u64) -> u64 {
    let limit = if format == 9 { 0x67 } else { 0x2B };
    PRESENT | format << 40 | (base & 0xFF_FFFF) << 16 | limit
}

/// A CPU in a task of the format `old`, with another one of the format `new` to go to.
fn machine(old: u64, new: u64) -> Machine {
    let descriptors = [
        CODE_32,
        DATA_32,
        task(OLD, old) | BUSY,
        task(NEW, new),
        LDT_DESCRIPTOR,
        USER_CODE,
        USER_DATA,
    ];
    let mut machine = protected(&[], &descriptors);
    machine.cpu.rip = 0x1111;
    machine.cpu.rflags = rflags::FIXED | rflags::CF | rflags::NT | rflags::RF;
    machine.cpu.debug[7] = 0x7FF;
    machine.cpu.shadow = Some(InterruptShadow::Sti);
    machine.cpu.nmi_blocked = true;
    for (index, gpr) in (0_u64..).zip(&mut machine.cpu.gprs) {
        *gpr = 0xAAAA_BBBB_0101_0000 + index;
    }
    for (index, segment) in (0x101..).zip(&mut machine.cpu.segments) {
        segment.selector = index;
    }
    let kind = old as u8 | 2;
    *machine.cpu.segment_mut(SegmentRegister::Tr) = Segment {
        selector: OLD_TASK,
        limit: if old == 9 { 0x67 } else { 0x2B },
        base: OLD,
        attributes: SegmentAttributes::new().with_kind(kind).with_present(true),
    };
    machine.fill_new(new == 9);
    machine
}

impl Machine {
    /// Fills the new TSS: registers that count up, and flat segments.
    fn fill_new(&self, is_32_bit: bool) {
        let store = |offset, bytes, value| self.bus.store(NEW + offset, bytes, value);
        let selectors = [STACK, CODE, STACK, 0, STACK, 0].map(u64::from);
        if is_32_bit {
            store(0x1C, 4, 0x7000);
            store(0x20, 4, ENTRY);
            store(0x24, 4, rflags::ZF | 1 << 3);
            (0..8).for_each(|index| store(0x28 + 4 * index, 4, 0x8765_0000 + index));
            store(0x38, 4, TOP);
            (0..).zip(selectors).for_each(|(i, selector)| store(0x48 + 4 * i, 4, selector));
        } else {
            store(0x0E, 2, ENTRY);
            store(0x10, 2, rflags::ZF);
            (0..8).for_each(|index| store(0x12 + 2 * index, 2, 0x8760 + index));
            store(0x1A, 2, TOP);
            (0..4).for_each(|i| store(0x22 + 2 * i, 2, selectors[i as usize]));
        }
    }

    fn put(self, offset: u64, bytes: u64, value: u64) -> Self {
        self.bus.store(NEW + offset, bytes, value);
        self
    }

    fn switch(&mut self, source: TaskSwitchSource) -> TaskSwitchEnd {
        self.switch_with(source, None, false)
    }

    fn switch_with(
        &mut self,
        source: TaskSwitchSource,
        error_code: Option<u32>,
        external: bool,
    ) -> TaskSwitchEnd {
        let switch = TaskSwitch { selector: NEW_TASK, source, error_code };
        let departure = Departure { return_to: RETURN_TO, external };
        switch_task(&mut self.cpu, &mut self.bus, switch, departure)
    }

    /// The bit that tells a busy task, of a descriptor.
    fn is_busy(&self, selector: u16) -> bool {
        self.bus.load(GDT + u64::from(selector), 8) & BUSY != 0
    }

    fn set_descriptor(self, selector: u16, descriptor: u64) -> Self {
        self.bus.store(GDT + u64::from(selector & !7), 8, descriptor);
        self
    }
}

const COMMITTED: TaskSwitchEnd = TaskSwitchEnd { committed: true, outcome: DONE };

/// A fault with an error code, in the old task or the new one.
fn fault(committed: bool, vector: u8, code: u16) -> TaskSwitchEnd {
    let outcome = Outcome::Fault(Exception::with_code(vector, code.into()));
    TaskSwitchEnd { committed, outcome }
}

#[test]
fn a_call_saves_the_old_task_and_begins_the_new_one() {
    let mut machine = machine(9, 9);
    assert_eq!(machine.switch(TaskSwitchSource::Call), COMMITTED);
    let old = |offset| machine.bus.load(OLD + offset, 4);
    assert_eq!(old(0x20), RETURN_TO);
    assert_eq!(old(0x24), rflags::FIXED | rflags::CF | rflags::NT | rflags::RF);
    for index in 0..8 {
        assert_eq!(old(0x28 + 4 * index), 0x0101_0000 + index);
    }
    for index in 0..6 {
        assert_eq!(old(0x48 + 4 * index), 0x101 + index);
    }
    assert_eq!((old(0), old(0x1C), old(0x60)), (0, 0, 0), "the static fields");
    assert_eq!(machine.bus.load(NEW, 4), OLD_TASK.into(), "the link");
    assert!(machine.is_busy(OLD_TASK) && machine.is_busy(NEW_TASK));
    let cpu = &machine.cpu;
    assert_eq!((cpu.rip, cpu.cpl), (ENTRY, 0));
    assert_eq!(cpu.rflags, rflags::FIXED | rflags::ZF | rflags::NT);
    assert_eq!(machine.get(Gpr::Rax), 0x8765_0000);
    assert_eq!(machine.get(Gpr::Rdi), 0x8765_0007);
    assert_eq!(machine.get(Gpr::Rsp), TOP);
    assert_eq!(cpu.control.cr0 & cr0::TS, cr0::TS);
    assert_eq!(cpu.control.cr3, 0, "without paging it stays");
    assert_eq!(cpu.debug[7], 0x6AA);
    assert!(cpu.shadow.is_none() && cpu.nmi_blocked);
    let tr = segment(&machine, SegmentRegister::Tr);
    assert_eq!((tr.selector, tr.base, tr.limit), (NEW_TASK, NEW, 0x67));
    assert_eq!(tr.attributes.kind(), 11);
    let cs = segment(&machine, SegmentRegister::Cs);
    assert_eq!((cs.selector, cs.limit, u32::from(cs.attributes)), (CODE, u32::MAX, 0xC9B));
    let ss = segment(&machine, SegmentRegister::Ss);
    assert_eq!((ss.selector, u32::from(ss.attributes)), (STACK, 0xC93));
    assert!(segment(&machine, SegmentRegister::Ds).attributes.unusable());
    assert!(segment(&machine, SegmentRegister::Ldtr).attributes.unusable());
    assert_eq!(machine.bus.load(GDT + u64::from(CODE), 8), CODE_32 | ACCESSED);
}

#[test]
fn a_jump_leaves_the_old_task_for_good() {
    let mut machine = machine(9, 9);
    assert_eq!(machine.switch(TaskSwitchSource::Jump), COMMITTED);
    assert!(!machine.is_busy(OLD_TASK) && machine.is_busy(NEW_TASK));
    assert_eq!(machine.bus.load(NEW, 4), 0, "no link");
    assert_eq!(machine.cpu.rflags & rflags::NT, 0);
    assert_eq!(machine.bus.load(OLD + 0x24, 4) & rflags::NT, rflags::NT);
}

#[test]
fn a_return_goes_back_to_a_busy_task() {
    let mut machine = machine(9, 9).set_descriptor(NEW_TASK, task(NEW, 9) | BUSY);
    assert_eq!(machine.switch(TaskSwitchSource::Return), COMMITTED);
    assert!(!machine.is_busy(OLD_TASK) && machine.is_busy(NEW_TASK));
    assert_eq!(machine.bus.load(OLD + 0x24, 4) & rflags::NT, 0, "not nested any more");
    assert!(!machine.cpu.nmi_blocked);
}

/// After a switch from a task, whose descriptor this is, to itself.
fn switched_to_itself(source: TaskSwitchSource, descriptor: u64) -> Machine {
    let mut machine = machine(9, 9).set_descriptor(OLD_TASK, descriptor);
    let switch = TaskSwitch { selector: OLD_TASK, source, error_code: None };
    machine.cpu.segments[SegmentRegister::Cs as usize].selector = CODE;
    machine.cpu.segments[SegmentRegister::Ss as usize].selector = STACK;
    for register in [SegmentRegister::Es, SegmentRegister::Ds, SegmentRegister::Fs] {
        machine.cpu.segment_mut(register).selector = 0;
    }
    machine.cpu.segment_mut(SegmentRegister::Gs).selector = STACK;
    let departure = Departure { return_to: RETURN_TO, external: false };
    assert_eq!(switch_task(&mut machine.cpu, &mut machine.bus, switch, departure), COMMITTED);
    machine
}

#[test]
fn a_return_to_the_same_task_finds_what_it_saved() {
    let machine = switched_to_itself(TaskSwitchSource::Return, task(OLD, 9) | BUSY);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rcx)), (RETURN_TO, 0x0101_0001));
}

#[test]
fn a_task_that_jumps_into_itself_stays_busy() {
    let machine = switched_to_itself(TaskSwitchSource::Jump, task(OLD, 9));
    assert!(machine.is_busy(OLD_TASK));
    assert_eq!(machine.cpu.rip, RETURN_TO);
}

#[test]
fn tasks_of_16_bits_have_half_the_registers() {
    let mut machine = machine(1, 1);
    machine.cpu.control.cr3 = 0x5000;
    assert_eq!(machine.switch(TaskSwitchSource::Call), COMMITTED);
    let old = |offset| machine.bus.load(OLD + offset, 2);
    assert_eq!((old(0x0E), old(0x10)), (RETURN_TO, rflags::FIXED | rflags::CF | rflags::NT));
    assert_eq!((old(0x14), old(0x22), old(0x28), old(0x2A)), (1, 0x101, 0x104, 0));
    assert_eq!(machine.bus.load(OLD + 0x2C, 4), 0, "nothing behind it");
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rcx)), (ENTRY, 0x8761));
    assert_eq!(machine.cpu.control.cr3, 0x5000);
    assert!(segment(&machine, SegmentRegister::Gs).attributes.unusable());
    // To 32 bits, with an error code that is as wide as the new TSS has it.
    for (old, new, width) in [(1, 9, 4), (9, 1, 2)] {
        let mut machine = self::machine(old, new);
        let end = machine.switch_with(TaskSwitchSource::Gate, Some(0x1_2345), true);
        assert_eq!(end, COMMITTED);
        assert_eq!(machine.get(Gpr::Rsp), TOP - width);
        assert_eq!(machine.bus.load(TOP - width, 2), 0x2345);
    }
}

#[test]
fn what_is_wrong_with_the_tss_is_a_fault_of_the_old_task() {
    use TaskSwitchSource::{Call, Gate, Jump, Return};
    let check = |source, descriptor, vector| {
        let mut machine = machine(9, 9).set_descriptor(NEW_TASK, descriptor);
        let (before, page) = (machine.cpu.clone(), machine.bus.page(DATA));
        assert_eq!(machine.switch(source), fault(false, vector, NEW_TASK));
        assert!(machine.cpu == before && machine.bus.page(DATA) == page);
        assert!(machine.is_busy(OLD_TASK));
    };
    for source in [Call, Jump, Gate] {
        check(source, task(NEW, 9) | BUSY, 13);
        check(source, DATA_32, 13);
        check(source, task(NEW, 9) & !PRESENT, 11);
        check(source, task(NEW, 9) - 1, 10);
        check(source, task(NEW, 1) - 1, 10);
    }
    check(Return, task(NEW, 9), 10);
    check(Return, LDT_DESCRIPTOR, 10);
    check(Return, (task(NEW, 9) | BUSY) & !PRESENT, 11);
    let mut machine = machine(9, 9);
    machine.cpu.gdtr.limit = 0x20;
    assert_eq!(machine.switch(Call), fault(false, 13, NEW_TASK));
    assert_eq!(machine.switch(Return), fault(false, 10, NEW_TASK));
    assert_eq!(machine.switch_with(Gate, None, true), fault(false, 13, NEW_TASK | 1));
    let mut machine = self::machine(9, 9);
    machine.cpu.segment_mut(SegmentRegister::Tr).limit = 0x5E;
    assert_eq!(machine.switch(Call), fault(false, 10, OLD_TASK));
    machine.cpu.segment_mut(SegmentRegister::Tr).limit = 0x5F;
    assert_eq!(machine.switch(Call), COMMITTED, "nothing more is saved");
}

#[test]
fn what_is_wrong_with_the_segments_is_a_fault_of_the_new_task() {
    const ES: u64 = 0x48;
    const CS: u64 = 0x4C;
    const SS: u64 = 0x50;
    const LDTR: u64 = 0x60;
    let end = |offset, selector: u16| {
        let mut machine = machine(9, 9).put(offset, 2, selector.into());
        let end = machine.switch(TaskSwitchSource::Call);
        assert_eq!(machine.cpu.rip, ENTRY);
        assert_eq!(segment(&machine, SegmentRegister::Tr).selector, NEW_TASK);
        assert!(segment(&machine, SegmentRegister::Cs).attributes.present());
        end
    };
    for (offset, selector) in [
        (LDTR, CODE),
        (LDTR, LDT | 4),
        (CS, 0),
        (CS, STACK),
        (CS, 0x40),
        (CS, CODE | 3),
        (CS, 0x0C),
        (SS, 0),
        (SS, CODE),
        (SS, STACK | 3),
        (SS, USER_STACK),
        (ES, NEW_TASK),
        (ES, STACK | 3),
        (ES, 0x40),
    ] {
        assert_eq!(
            end(offset, selector),
            fault(true, 10, selector & !3),
            "{offset:x}={selector:x}"
        );
    }
    assert_eq!(end(LDTR, LDT), COMMITTED);
    assert_eq!(end(ES, 3), COMMITTED);
    let absent = |selector: u16, descriptor: u64, at| {
        let machine = machine(9, 9).set_descriptor(0x38, descriptor & !PRESENT);
        machine.put(at, 2, selector.into()).switch(TaskSwitchSource::Call)
    };
    assert_eq!(absent(0x38, CODE_32, CS), fault(true, 11, 0x38));
    assert_eq!(absent(0x38, DATA_32, SS), fault(true, 12, 0x38));
    assert_eq!(absent(0x38, READ_ONLY, ES), fault(true, 11, 0x38));
    assert_eq!(absent(0x38, LDT_DESCRIPTOR, LDTR), fault(true, 10, 0x38));
    let mut machine = machine(9, 9).put(CS, 2, 0);
    let end = machine.switch_with(TaskSwitchSource::Gate, Some(0), true);
    assert_eq!(end, fault(true, 10, 1), "from outside");
}

#[test]
fn the_code_selector_tells_the_privilege_level() {
    let mut machine = machine(9, 9).put(0x4C, 2, USER.into()).put(0x50, 2, USER_STACK.into());
    assert_eq!(machine.switch(TaskSwitchSource::Jump), fault(true, 10, STACK), "ES");
    assert_eq!(machine.cpu.cpl, 3);
    let machine = self::machine(9, 9).put(0x48, 2, 0).put(0x58, 2, USER_STACK.into());
    let mut machine = machine.put(0x4C, 2, USER.into()).put(0x50, 2, USER_STACK.into());
    assert_eq!(machine.switch(TaskSwitchSource::Jump), COMMITTED);
    assert_eq!(machine.cpu.cpl, 3);
}

/// A CPU enters no guest whose stack selector has another level, also if the stack is unusable.
#[test]
fn a_bad_stack_of_a_user_task_leaves_a_state_that_can_be_entered() {
    let mut machine = machine(9, 9).put(0x4C, 2, USER.into()).put(0x50, 2, STACK.into());
    assert_eq!(machine.switch(TaskSwitchSource::Jump), fault(true, 10, STACK));
    let (code, stack) =
        (segment(&machine, SegmentRegister::Cs), segment(&machine, SegmentRegister::Ss));
    assert_eq!((code.selector & 3, stack.selector), (3, STACK | 3));
    assert!(stack.attributes.unusable() && stack.attributes.dpl() == 3);
}

#[test]
fn local_descriptors_come_from_the_new_tables() {
    let machine = machine(9, 9).put(0x60, 2, LDT.into()).put(0x4C, 2, 0x0C);
    machine.bus.store(LOCAL_TABLE + 8, 8, CODE_32);
    let mut machine = machine;
    assert_eq!(machine.switch(TaskSwitchSource::Jump), COMMITTED);
    let ldtr = segment(&machine, SegmentRegister::Ldtr);
    assert_eq!((ldtr.selector, ldtr.base, ldtr.limit), (LDT, LOCAL_TABLE, 0xF));
    assert_eq!(machine.bus.load(LOCAL_TABLE + 8, 8), CODE_32 | ACCESSED);
}

#[test]
fn a_task_can_be_in_virtual_8086_mode() {
    let mut machine = machine(9, 9).put(0x24, 4, rflags::VM).put(0x4C, 2, 0x1234);
    assert_eq!(machine.switch(TaskSwitchSource::Jump), COMMITTED);
    assert_eq!(machine.cpu.cpl, 3);
    let cs = segment(&machine, SegmentRegister::Cs);
    assert_eq!((cs.base, cs.limit, u32::from(cs.attributes)), (0x1_2340, 0xFFFF, 0xF3));
    let gs = segment(&machine, SegmentRegister::Gs);
    assert_eq!((gs.selector, gs.base, gs.limit), (0, 0, 0xFFFF));
    let machine = self::machine(9, 9).put(0x24, 4, rflags::VM).put(0x60, 2, CODE.into());
    let mut machine = machine.put(0x4C, 2, 0x1234);
    assert_eq!(machine.switch(TaskSwitchSource::Jump), fault(true, 10, CODE));
    let cs = segment(&machine, SegmentRegister::Cs);
    assert_eq!((cs.base, u32::from(cs.attributes)), (0x1_2340, 0xF3), "the fault comes in it");
}

#[test]
fn the_t_flag_ends_in_a_debug_exception_of_the_new_task() {
    let mut machine = machine(9, 9).put(0x64, 2, 1);
    let outcome = Outcome::Fault(Exception::DEBUG);
    let end = machine.switch(TaskSwitchSource::Call);
    assert_eq!(end, TaskSwitchEnd { committed: true, outcome });
    assert_eq!((machine.cpu.debug[6], machine.cpu.rip), (1 << 15, ENTRY));
}

#[test]
fn an_error_code_needs_a_stack() {
    let mut machine = machine(9, 9).set_descriptor(0x38, 0x0000_9200_0000_0FFF).put(0x50, 2, 0x38);
    let end = machine.switch_with(TaskSwitchSource::Gate, Some(0), true);
    assert_eq!(end, fault(true, 12, 1));
    assert_eq!(machine.get(Gpr::Rsp), TOP);
}

/// Puts PAE tables that map the first 2 MiB to themselves at `root`.
fn map_pae(machine: &Machine, root: u64) {
    for (page, entry) in [(root, (root + 0x1000) | 1), (root + 0x1000, 0x83)] {
        machine.bus.add(page);
        machine.bus.store(page, 8, entry);
    }
}

fn paged() -> Machine {
    let mut machine = machine(9, 9);
    for root in [0x5000, 0x7000] {
        map_pae(&machine, root);
    }
    machine.cpu.control.cr0 |= cr0::PG | cr0::WP;
    machine.cpu.control.cr4 |= cr4::PAE | cr4::PSE;
    machine.cpu.control.cr3 = 0x5000;
    machine
}

#[test]
fn page_tables_are_switched_with_their_pointers() {
    let mut machine = paged();
    assert_eq!(machine.switch(TaskSwitchSource::Call), COMMITTED);
    assert_eq!(machine.cpu.control.cr3, 0x7000);
    assert_eq!(machine.cpu.page_directory_pointers, None);
    // Segments are looked for in the new ones.
    let mut machine = paged();
    machine.cpu.page_directory_pointers = Some([0x6001, 0, 0, 0]);
    machine.bus.store(0x8000, 8, 0);
    let end = machine.switch(TaskSwitchSource::Call);
    let at = GDT + u64::from(CODE);
    let outcome = Outcome::Fault(Exception::page_fault(at, 0));
    assert_eq!(end, TaskSwitchEnd { committed: true, outcome });
    assert_eq!(machine.cpu.page_directory_pointers, Some([0x8001, 0, 0, 0]));
    assert!(machine.bus.read_u64(crate::GuestPhysAddr::new(at)).is_ok());
}

#[test]
fn bad_pointers_are_refused_in_the_old_task() {
    let mut machine = paged();
    machine.cpu.page_directory_pointers = Some([0x6001, 0, 0, 0]);
    machine.bus.store(0x7008, 8, 3);
    let before = machine.cpu.clone();
    assert_eq!(machine.switch(TaskSwitchSource::Call), fault(false, 13, 0));
    assert_eq!(machine.cpu, before);
    assert!(!machine.is_busy(NEW_TASK));
}

#[test]
fn page_faults_at_either_tss_change_nothing() {
    // The new TSS begins in the last bytes of what is mapped.
    const LAST: u64 = 0x20_0000 - 0x20;
    let mut machine = paged().set_descriptor(NEW_TASK, task(LAST, 9));
    machine.bus.add(LAST & !0xFFF);
    let before = machine.cpu.clone();
    let end = machine.switch(TaskSwitchSource::Call);
    let outcome = Outcome::Fault(Exception::page_fault(0x20_0000, 0));
    assert_eq!(end, TaskSwitchEnd { committed: false, outcome });
    assert_eq!(machine.cpu, before);
    // The old one, on a page that cannot be written.
    let mut machine = paged();
    machine.bus.store(0x6000, 8, 0x81);
    let end = machine.switch(TaskSwitchSource::Call);
    let outcome = Outcome::Fault(Exception::page_fault(OLD + 0x20, 3));
    assert_eq!(end, TaskSwitchEnd { committed: false, outcome });
}

#[test]
fn a_tss_may_lie_across_pages() {
    let at = DATA + 0xFF0;
    let mut machine = machine(9, 9);
    machine.cpu.gdtr = DescriptorTable { base: DATA + 0x400, limit: machine.cpu.gdtr.limit };
    for offset in (0..64).step_by(8) {
        machine.bus.store(DATA + 0x400 + offset, 8, machine.bus.load(GDT + offset, 8));
    }
    for offset in 0..104 {
        machine.bus.store(at + offset, 1, machine.bus.load(NEW + offset, 1));
    }
    machine.bus.store(DATA + 0x400 + u64::from(NEW_TASK), 8, task(at, 9));
    assert_eq!(machine.switch(TaskSwitchSource::Call), COMMITTED);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rdi)), (ENTRY, 0x8765_0007));
}

#[test]
fn long_mode_and_real_mode_have_no_tasks() {
    for mut machine in [Machine::long(&[]), Machine::real(&[])] {
        let end = machine.switch(TaskSwitchSource::Call);
        assert!(!end.committed && matches!(end.outcome, Outcome::Unsupported(_)));
    }
}
