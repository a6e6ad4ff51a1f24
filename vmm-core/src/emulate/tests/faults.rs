// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults: which, when, and that nothing changes before them.

use super::machine::{CODE, DATA, Machine, REFUSED, ROOT, TestCpu};
use crate::GuestPhysAddr;
use crate::emulate::{Outcome, decode, emulate, instruction_length};
use crate::paging::walk::AccessKind;
use crate::state::{Exception, Gpr, cr0, rflags};

const DONE: Outcome = Outcome::Done { debug_trap: false };
/// Not mapped in a [`Machine`].
const NOWHERE: u64 = 0x9000;

/// Runs `machine` and checks that it faults with `exception` and stays as it was.
fn faults(mut machine: Machine, exception: Exception) {
    let (cpu, data) = (machine.cpu.clone(), machine.bus.page(DATA));
    assert_eq!(machine.run(), Outcome::Fault(exception));
    assert_eq!(machine.cpu, cpu);
    assert_eq!(machine.bus.page(DATA), data);
    assert!(machine.bus.log.is_empty());
}

#[test]
fn page_faults_carry_address_and_code() {
    // mov [rbx], eax; mov eax, [rbx]; add [rbx], eax: the last counts as a write.
    for (code, error) in [(&[0x89, 0x03], 2), (&[0x8B, 0x03], 0), (&[0x01, 0x03], 2)] {
        let machine = Machine::long(code).set(Gpr::Rbx, NOWHERE);
        faults(machine, Exception::page_fault(NOWHERE, error));
    }
}

#[test]
fn user_mode_faults_on_supervisor_pages() {
    let mut machine = Machine::long(&[0x8B, 0x03]).set(Gpr::Rbx, DATA);
    machine.bus.map(DATA, DATA, 3);
    machine.cpu.cpl = 3;
    faults(machine, Exception::page_fault(DATA, 5));
}

#[test]
fn a_write_across_pages_faults_before_it_begins() {
    // mov [rbx], rax: the second half lies in a page that is not mapped.
    let machine = Machine::long(&[0x48, 0x89, 0x03]).set(Gpr::Rbx, DATA + 0x1FFD);
    faults(machine, Exception::page_fault(DATA + 0x2000, 2));
}

#[test]
fn addresses_must_be_canonical() {
    let high = 0x8000_0000_0000;
    // mov [rbx], eax; mov [rbp + 0], eax; push rax: the last two use the stack segment.
    faults(Machine::long(&[0x89, 0x03]).set(Gpr::Rbx, high), Exception::GENERAL_PROTECTION);
    faults(Machine::long(&[0x89, 0x45, 0]).set(Gpr::Rbp, high), Exception::STACK);
    faults(Machine::long(&[0xFF, 0xF0]).set(Gpr::Rsp, high + 8), Exception::STACK);
    // The last byte of the operand counts too.
    faults(
        Machine::long(&[0x48, 0x89, 0x03]).set(Gpr::Rbx, high - 4),
        Exception::GENERAL_PROTECTION,
    );
}

#[test]
fn branch_targets_are_checked_before_the_push() {
    // call [rbx] with a target that is not canonical.
    let machine = Machine::long(&[0xFF, 0x13]).set(Gpr::Rbx, DATA).set(Gpr::Rsp, DATA + 0x100);
    machine.bus.store(DATA, 8, 1 << 60);
    faults(machine, Exception::GENERAL_PROTECTION);
}

#[test]
fn lock_is_legal_only_with_a_few_memory_writes() {
    // lock mov [rbx], eax; lock add eax, ebx; lock cmp [rbx], eax; lock bt [rbx], eax.
    for code in [
        &[0xF0, 0x89, 0x03][..],
        &[0xF0, 0x01, 0xD8],
        &[0xF0, 0x39, 0x03],
        &[0xF0, 0x0F, 0xA3, 0x03],
    ] {
        faults(Machine::long(code).set(Gpr::Rbx, DATA), Exception::INVALID_OPCODE);
    }
    faults(Machine::long(&[0x0F, 0x0B]), Exception::INVALID_OPCODE);
}

#[test]
fn division_errors() {
    // div dword [rbx]: by zero; then with a quotient of 33 bits; idiv of the smallest by -1.
    let machine = || Machine::long(&[0xF7, 0x33]).set(Gpr::Rbx, DATA).set(Gpr::Rdx, 1);
    faults(machine(), Exception::DIVIDE);
    let overflow = machine();
    overflow.bus.store(DATA, 4, 1);
    faults(overflow, Exception::DIVIDE);
    let code = [0x48, 0xF7, 0x3B];
    let smallest = Machine::long(&code).set(Gpr::Rbx, DATA).set(Gpr::Rdx, 1 << 63);
    smallest.bus.store(DATA, 8, u64::MAX);
    faults(smallest, Exception::DIVIDE);
}

#[test]
fn misaligned_user_accesses_raise_alignment_checks_only_when_enabled() {
    let mut machine = Machine::long(&[0x8B, 0x03]).set(Gpr::Rbx, DATA + 1);
    machine.cpu.control.cr0 |= cr0::AM;
    machine.cpu.rflags |= rflags::AC;
    assert_eq!(machine.run(), DONE);
    machine.cpu.rip = CODE;
    machine.cpu.cpl = 3;
    faults(machine, Exception::ALIGNMENT_CHECK);
}

#[test]
fn cmpxchg16b_wants_alignment() {
    let machine = Machine::long(&[0x48, 0x0F, 0xC7, 0x0B]).set(Gpr::Rbx, DATA + 8);
    faults(machine, Exception::GENERAL_PROTECTION);
}

#[test]
fn real_mode_exceptions_have_no_error_code() {
    // mov [bx], eax at the end of the segment.
    let machine = Machine::real(&[0x66, 0x89, 0x07]).set(Gpr::Rbx, 0xFFFE);
    let expected = Exception { error_code: None, ..Exception::GENERAL_PROTECTION };
    faults(machine, expected);
}

#[test]
fn pop_to_memory_leaves_the_stack_pointer_when_it_faults() {
    let machine = Machine::long(&[0x8F, 0x03]).set(Gpr::Rbx, NOWHERE).set(Gpr::Rsp, DATA + 0x20);
    faults(machine, Exception::page_fault(NOWHERE, 2));
}

#[test]
fn instructions_are_fetched_across_pages_and_fault_there() {
    // mov dword [rbx], 0x12345678 with its last two bytes in the next page.
    let code = [0xC7, 0x03, 0x78, 0x56, 0x34, 0x12];
    let mut machine = Machine::long(&[]).set(Gpr::Rbx, DATA + 0x1100);
    machine.cpu.rip = DATA + 0xFFC;
    machine.bus.store_bytes(machine.cpu.rip, &code);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.cpu.rip, DATA + 0x1002);
    assert_eq!(machine.bus.load(DATA + 0x1100, 4), 0x1234_5678);
    let mut machine = Machine::long(&[]);
    machine.cpu.rip = DATA + 0x1FFC;
    machine.bus.store_bytes(machine.cpu.rip, &code[..4]);
    faults(machine, Exception::page_fault(DATA + 0x2000, 0x10));
}

#[test]
fn an_instruction_that_ends_with_the_page_does_not_touch_the_next() {
    let mut machine = Machine::long(&[]).set(Gpr::Rbx, DATA);
    machine.cpu.rip = DATA + 0x1FFE;
    machine.bus.store_bytes(machine.cpu.rip, &[0x89, 0x03]);
    assert_eq!(machine.run(), DONE);
}

#[test]
fn instructions_longer_than_15_bytes_are_refused() {
    let mut code = [0x66; 16];
    code[15] = 0x90;
    faults(Machine::long(&code), Exception::GENERAL_PROTECTION);
}

#[test]
fn given_bytes_are_used_and_completed_from_memory_if_short() {
    let mut machine = Machine::long(&[0xC6, 0x03, 0x55]).set(Gpr::Rbx, DATA);
    let Machine { cpu, bus } = &mut machine;
    assert_eq!(emulate(cpu, bus, Some(&[0xC6, 0x03, 0x77, 0xCC])), DONE);
    assert_eq!((bus.load(DATA, 1), cpu.rip), (0x77, CODE + 3));
    cpu.rip = CODE;
    assert_eq!(emulate(cpu, bus, Some(&[0xC6, 0x03])), DONE);
    assert_eq!((bus.load(DATA, 1), cpu.rip), (0x55, CODE + 3));
}

#[test]
fn lengths_are_found_with_and_without_the_decoder() {
    let cases: [(&[u8], usize); 8] = [
        (&[0x0F, 0xA2], 2),
        (&[0xF4], 1),
        (&[0x0F, 0x01, 0xD9], 3),
        (&[0x0F, 0x22, 0xC0], 3),
        (&[0xE6, 0x80], 2),
        (&[0x66, 0xEF], 2),
        (&[0x48, 0xC7, 0x84, 0x8B, 0, 0, 0, 0, 0, 0, 0, 0], 12),
        (&[0x0F, 0x01, 0x38], 3),
    ];
    for (code, length) in cases {
        let mut machine = Machine::long(code);
        let Machine { cpu, bus } = &mut machine;
        assert_eq!(instruction_length(cpu, bus, None), Ok(length), "{code:x?}");
        assert_eq!(instruction_length(cpu, bus, Some(code)), Ok(length), "{code:x?}");
        assert_eq!(decode(cpu, bus).unwrap().len(), length);
    }
    let mut machine = Machine::long(&[]);
    machine.cpu.rip = NOWHERE;
    let fault = Outcome::Fault(Exception::page_fault(NOWHERE, 0x10));
    assert_eq!(instruction_length(&mut machine.cpu, &mut machine.bus, None), Err(fault));
}

#[test]
fn unknown_instructions_are_reported_with_their_bytes() {
    // movups [rbx], xmm0.
    let mut machine = Machine::long(&[0x0F, 0x11, 0x03]).set(Gpr::Rbx, DATA);
    let Outcome::Unsupported(bytes) = machine.run() else { panic!("it is supported") };
    assert_eq!(bytes.to_string(), "0f 11 03");
    assert_eq!(machine.cpu.rip, CODE);
    // movsd [rbx], xmm0 shares its name with the string instruction.
    let mut machine = Machine::long(&[0xF2, 0x0F, 0x11, 0x03]);
    assert!(matches!(machine.run(), Outcome::Unsupported(_)));
}

#[test]
fn what_the_bus_refuses_is_reported() {
    let address = GuestPhysAddr::new(REFUSED);
    let refused = |code: &[u8]| Machine::long(code).set(Gpr::Rbx, REFUSED).run();
    let read = Outcome::BusError { address, access: AccessKind::Read };
    let write = Outcome::BusError { address, access: AccessKind::Write };
    assert_eq!(refused(&[0x8B, 0x03]), read);
    assert_eq!(refused(&[0x89, 0x03]), write);
    let mut machine = Machine::long(&[]);
    machine.cpu.rip = REFUSED;
    assert_eq!(machine.run(), Outcome::BusError { address, access: AccessKind::Fetch });
}

#[test]
fn five_level_paging_is_refused() {
    let mut cpu = TestCpu::long(ROOT);
    cpu.control.cr4 |= crate::state::cr4::LA57;
    let mut machine = Machine::long(&[0x89, 0x03]);
    assert_eq!(emulate(&mut cpu, &mut machine.bus, None), Outcome::UnsupportedPaging);
}

#[test]
fn completion_clears_resume_and_reports_single_steps() {
    let mut machine = Machine::long(&[0x89, 0x03]).set(Gpr::Rbx, DATA);
    machine.cpu.rflags |= rflags::RF | rflags::TF;
    assert_eq!(machine.run(), Outcome::Done { debug_trap: true });
    assert_eq!(machine.cpu.rflags, rflags::FIXED | rflags::TF);
}
