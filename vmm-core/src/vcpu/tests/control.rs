// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves to control registers, and XSETBV.

use super::machine::{CODE, HIGH, Machine, machine, machine_with};
use crate::{
    ControlRegisterAccess, Exit,
    cpuid::{XSTATE_AVX, XSTATE_X87},
    paging::shadow::ShadowConfig,
    state::{Exception, Gpr, SegmentRegister, cr0, cr4, efer},
    vm::PagingChoice,
};

fn mov(register: u8, is_write: bool) -> Exit {
    Exit::ControlRegister(match is_write {
        true => ControlRegisterAccess::Write { register, source: None },
        false => ControlRegisterAccess::Read { register, target: None },
    })
}

/// `mov cr4, ecx`.
const TO_CR4: &[u8] = &[0x0F, 0x22, 0xE1];
/// `mov cr8, rcx` and `mov rcx, cr8`, in 64-bit code, and the same as `lock mov cr0`, which
/// serves all modes (AMD APM vol. 3, MOV CRn).
const TO_CR8: [&[u8]; 2] = [&[0x44, 0x0F, 0x22, 0xC1], &[0xF0, 0x0F, 0x22, 0xC1]];
const FROM_CR8: [&[u8]; 2] = [&[0x44, 0x0F, 0x20, 0xC1], &[0xF0, 0x0F, 0x20, 0xC1]];

fn execute(machine: &mut Machine, code: &[u8], exit: Exit) -> Result<(), Exception> {
    let rip = machine.registers().rip;
    machine.poke(rip & !HIGH, code);
    machine.vcpu().handle(exit)
}

#[test]
fn cr4_takes_what_the_model_has() {
    let mut machine = machine();
    machine.set_gpr(Gpr::Rcx, 0xFFFF_FFFF << 32 | cr4::PAE | cr4::PGE);
    execute(&mut machine, TO_CR4, mov(4, true)).unwrap();
    assert_eq!(machine.registers().control.cr4, cr4::PAE | cr4::PGE);
    assert_eq!(machine.registers().rip, CODE + 3);
}

#[test]
fn cr4_refuses_what_the_model_lacks() {
    for illegal in [1 << 31, cr4::VMXE, cr4::LA57, cr4::PKE] {
        let mut machine = machine();
        machine.set_gpr(Gpr::Rcx, illegal | cr4::PAE);
        let result = execute(&mut machine, TO_CR4, mov(4, true));
        assert_eq!(result, Err(Exception::GENERAL_PROTECTION), "{illegal:#x}");
        assert_eq!((machine.registers().control.cr4, machine.registers().rip), (0, CODE));
    }
}

#[test]
fn the_move_may_lie_across_two_pages() {
    for offset in 1..TO_CR4.len() as u64 {
        let mut machine = machine();
        machine.registers().rip = CODE + 0x1000 - offset;
        machine.set_gpr(Gpr::Rcx, cr4::PAE);
        execute(&mut machine, TO_CR4, mov(4, true)).unwrap();
        assert_eq!(machine.registers().control.cr4, cr4::PAE);
        assert_eq!(machine.registers().rip, CODE + 0x1000 - offset + 3);
    }
}

#[test]
fn cr8_is_the_task_priority() {
    for (to, from) in TO_CR8.into_iter().zip(FROM_CR8) {
        let mut machine = machine();
        machine.enter_long_mode();
        machine.set_gpr(Gpr::Rcx, 9);
        execute(&mut machine, to, mov(8, true)).unwrap();
        assert_eq!(machine.vcpu().apic.tpr(), 0x90);
        assert_eq!(machine.registers().rip, HIGH + CODE + 4);
        machine.set_gpr(Gpr::Rcx, 1 << 32);
        let result = execute(&mut machine, to, mov(8, true));
        assert_eq!(result, Err(Exception::GENERAL_PROTECTION));
        execute(&mut machine, from, mov(8, false)).unwrap();
        assert_eq!(machine.gpr(Gpr::Rcx), 9);
    }
}

#[test]
fn cr8_is_reached_outside_64_bit_code_with_a_prefix() {
    let mut machine = machine();
    machine.set_gpr(Gpr::Rcx, 3);
    execute(&mut machine, TO_CR8[1], mov(8, true)).unwrap();
    assert_eq!((machine.vcpu().apic.cr8(), machine.registers().rip), (3, CODE + 4));
}

#[test]
fn cr0_follows_moves_lmsw_and_clts() {
    let mut machine = machine();
    machine.registers().next_rip = Some(CODE + 3);
    machine.registers().control.cr0 = cr0::ET | cr0::TS;
    machine.vcpu().handle(Exit::ControlRegister(ControlRegisterAccess::ClearTaskSwitched)).unwrap();
    assert_eq!(machine.registers().control.cr0, cr0::ET);
    let lmsw = ControlRegisterAccess::LoadMachineStatus(1);
    machine.vcpu().handle(Exit::ControlRegister(lmsw)).unwrap();
    assert_eq!(machine.registers().control.cr0, cr0::ET | cr0::PE);
    let write = ControlRegisterAccess::Write { register: 0, source: Some(Gpr::Rsi) };
    machine.set_gpr(Gpr::Rsi, cr0::PG);
    let refused = machine.vcpu().handle(Exit::ControlRegister(write));
    assert_eq!(refused, Err(Exception::GENERAL_PROTECTION), "paging without protection");
    machine.set_gpr(Gpr::Rsi, cr0::PE | cr0::PG);
    machine.registers().control.cr4 = cr4::PAE;
    machine.registers().control.efer = efer::LME;
    machine.vcpu().handle(Exit::ControlRegister(write)).unwrap();
    assert_eq!(machine.registers().control.efer, efer::LME | efer::LMA);
}

/// A CPU may have cached what it permits, and the shadow tables are the same as before (Intel SDM
/// vol. 3, 4.10.4.1).
#[test]
fn new_rules_for_translations_end_those_that_are_cached() {
    let write = ControlRegisterAccess::Write { register: 4, source: Some(Gpr::Rsi) };
    let run = |bits| {
        let mut machine = machine_with(1, |builder| {
            builder.set_paging(PagingChoice::Shadow, ShadowConfig::default());
        });
        machine.enter_long_mode();
        machine.registers().control.cr0 |= cr0::WP;
        machine.registers().next_rip = Some(HIGH + CODE + 3);
        machine.vcpu().shadow.root_is_old = true;
        machine.vcpu().renew_shadow_root();
        let root = machine.registers().shadow_root;
        machine.set_gpr(Gpr::Rsi, cr4::PAE | bits);
        machine.handle(Exit::ControlRegister(write)).unwrap();
        machine.vcpu().renew_shadow_root();
        (machine.registers().flushes > 0, machine.registers().shadow_root == root)
    };
    let supported = machine().vcpu().core.cpuid.supported_cr4();
    assert_eq!(run(cr4::PCE), (false, true));
    for bit in [cr4::PGE, cr4::SMEP].into_iter().filter(|bit| supported & bit != 0) {
        assert_eq!(run(bit), (true, true), "{bit:#x}");
    }
}

/// Else the instruction behind would be 64-bit code; with a segment that says to be of 32 bits, too,
/// VT-x would refuse the entry (Intel SDM vol. 3, 9.8.5).
#[test]
fn long_mode_does_not_begin_in_a_segment_of_64_bit_code() {
    let write = ControlRegisterAccess::Write { register: 0, source: Some(Gpr::Rsi) };
    let run = |is_long| {
        let mut machine = machine();
        machine.registers().next_rip = Some(CODE + 3);
        machine.registers().control.cr4 = cr4::PAE;
        machine.registers().control.efer = efer::LME;
        let code = machine.registers().segment_mut(SegmentRegister::Cs);
        code.attributes.set_long(is_long);
        machine.set_gpr(Gpr::Rsi, cr0::PE | cr0::PG);
        let result = machine.vcpu().handle(Exit::ControlRegister(write));
        (result, machine.registers().control.efer)
    };
    assert_eq!(run(true), (Err(Exception::GENERAL_PROTECTION), efer::LME));
    assert_eq!(run(false), (Ok(()), efer::LME | efer::LMA));
}

#[test]
fn code_that_is_no_move_any_more_faults() {
    for code in [&[0x90][..], &[0x0F, 0x0B], &[0x0F, 0xFF, 0xC0]] {
        let mut machine = machine();
        let result = execute(&mut machine, code, mov(4, true));
        assert_eq!(result, Err(Exception::INVALID_OPCODE), "{code:02x?}");
    }
}

fn xsetbv(configure: impl FnOnce(&mut Machine)) -> (Result<(), Exception>, u64) {
    let mut machine = machine();
    machine.registers().next_rip = Some(CODE + 3);
    machine.registers().control.cr4 = cr4::OSXSAVE;
    machine.registers().xcr0 = 0x77;
    machine.set_gpr(Gpr::Rax, XSTATE_X87);
    machine.set_gpr(Gpr::Rdx, 0);
    configure(&mut machine);
    let result = machine.vcpu().handle(Exit::SetExtendedControl);
    (result, machine.registers().xcr0)
}

#[test]
fn xsetbv_is_checked() {
    const GP: Result<(), Exception> = Err(Exception::GENERAL_PROTECTION);
    let ud = Err(Exception::INVALID_OPCODE);
    // What the model offers depends on this machine; x87 alone is always legal where there
    // is XSAVE at all.
    let supported = machine().vcpu().core.cpuid.supported_xcr0();
    let plain = if supported & XSTATE_X87 != 0 { (Ok(()), XSTATE_X87) } else { (GP, 0x77) };
    assert_eq!(xsetbv(|_| {}), plain);
    assert_eq!(xsetbv(|m| m.registers().control.cr4 = 0), (ud, 0x77));
    assert_eq!(xsetbv(|m| m.registers().cpl = 3), (GP, 0x77));
    assert_eq!(xsetbv(|m| m.set_gpr(Gpr::Rcx, 1)), (GP, 0x77));
    assert_eq!(xsetbv(|m| m.set_gpr(Gpr::Rax, 0)), (GP, 0x77), "x87 is always on");
    assert_eq!(xsetbv(|m| m.set_gpr(Gpr::Rdx, 1 << 31)), (GP, 0x77));
    let avx_alone = XSTATE_X87 | XSTATE_AVX;
    assert_eq!(xsetbv(|m| m.set_gpr(Gpr::Rax, avx_alone)), (GP, 0x77));
}
