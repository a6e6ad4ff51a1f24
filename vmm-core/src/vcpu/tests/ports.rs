// SPDX-License-Identifier: MIT OR Apache-2.0
//! IN, OUT and their string forms.

use std::sync::Arc;

use super::{
    devices::{PATTERN, Recorder},
    machine::{CODE, Machine, machine_with},
};
use crate::{AccessWidth, Exit, PortIo, state::Gpr, statistics::Unclaimed};

const PORT: u16 = 0x500;

fn machine() -> (Machine, Arc<Recorder>) {
    let device = Arc::<Recorder>::default();
    let mut machine = machine_with(1, |b| b.claim_ports(PORT..=PORT + 15, device.clone()).unwrap());
    machine.registers().next_rip = Some(CODE + 1);
    (machine, device)
}

fn access(port: u16, width: AccessWidth, is_input: bool) -> Exit {
    Exit::PortIo(PortIo { port, width, is_input, is_string: false })
}

#[test]
fn input_changes_as_much_of_rax_as_the_width_says() {
    const BEFORE: u64 = 0xAAAA_BBBB_CCCC_DDDD;
    let (mut machine, _) = machine();
    for (width, after) in [
        (AccessWidth::Byte, 0xAAAA_BBBB_CCCC_DD11),
        (AccessWidth::Word, 0xAAAA_BBBB_CCCC_2211),
        (AccessWidth::Dword, PATTERN & 0xFFFF_FFFF),
    ] {
        machine.set_gpr(Gpr::Rax, BEFORE);
        machine.vcpu().handle(access(PORT, width, true)).unwrap();
        assert_eq!(machine.gpr(Gpr::Rax), after, "{width:?}");
        assert_eq!(machine.registers().rip, CODE + 1);
    }
    assert_eq!(machine.unclaimed(Unclaimed::PortRead), 0);
}

#[test]
fn output_takes_as_much_of_rax_as_the_width_says() {
    let (mut machine, device) = machine();
    for (width, value) in
        [(AccessWidth::Byte, 0xDD), (AccessWidth::Word, 0xCCDD), (AccessWidth::Dword, 0xAABB_CCDD)]
    {
        machine.set_gpr(Gpr::Rax, 0x1122_3344_AABB_CCDD);
        machine.vcpu().handle(access(PORT + 2, width, false)).unwrap();
        assert_eq!(device.take(), [(2, width, value)]);
        assert_eq!(machine.gpr(Gpr::Rax), 0x1122_3344_AABB_CCDD);
    }
}

#[test]
fn where_nobody_answers_reads_are_all_ones_and_both_are_counted() {
    let (mut machine, _) = machine();
    for port in [PORT - 1, 0xFFFF, PORT + 8] {
        machine.set_gpr(Gpr::Rax, 0);
        machine.vcpu().handle(access(port, AccessWidth::Byte, true)).unwrap();
        assert_eq!(machine.gpr(Gpr::Rax), 0xFF);
        machine.vcpu().handle(access(port, AccessWidth::Byte, false)).unwrap();
    }
    assert_eq!(machine.unclaimed(Unclaimed::PortRead), 3);
    assert_eq!(machine.unclaimed(Unclaimed::PortWrite), 3);
}

#[test]
fn string_output_goes_through_the_emulator() {
    let (mut machine, device) = machine();
    machine.poke(CODE, &[0xF3, 0x6E]);
    machine.poke(0x2000, b"hello");
    machine.set_gpr(Gpr::Rsi, 0x2000);
    machine.set_gpr(Gpr::Rcx, 5);
    machine.set_gpr(Gpr::Rdx, PORT.into());
    let io = PortIo { port: PORT, width: AccessWidth::Byte, is_input: false, is_string: true };
    machine.vcpu().handle(Exit::PortIo(io)).unwrap();
    let text: Vec<u8> = device.take().iter().map(|write| write.2 as u8).collect();
    assert_eq!(text, b"hello");
    assert_eq!((machine.gpr(Gpr::Rcx), machine.gpr(Gpr::Rsi)), (0, 0x2005));
    assert_eq!(machine.registers().rip, CODE + 2);
}

#[test]
fn string_input_fills_memory_and_counts_what_nobody_answers() {
    let (mut machine, _) = machine();
    machine.poke(CODE, &[0xF3, 0x66, 0x6D]);
    machine.set_gpr(Gpr::Rdi, 0x3000);
    machine.set_gpr(Gpr::Rcx, 2);
    machine.set_gpr(Gpr::Rdx, 0x70);
    let io = PortIo { port: 0x70, width: AccessWidth::Word, is_input: true, is_string: true };
    machine.vcpu().handle(Exit::PortIo(io)).unwrap();
    let memory = machine.vm.memory().read_u64(crate::GuestPhysAddr::new(0x3000)).unwrap();
    assert_eq!(memory, 0xFFFF_FFFF);
    assert_eq!(machine.unclaimed(Unclaimed::PortRead), 2);
}
