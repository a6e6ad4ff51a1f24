// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a host kernel unhooks is denied again: it neither reaches the device that was there nor
//! the hardware.

use std::sync::Arc;

use crate::{
    AccessWidth, Exit, GuestPhysAddr,
    bus::{Answer, MmioBus, PortBus},
    state::{Exception, Gpr},
    vcpu::tests::{
        devices::{Hook, PATTERN, Recorder},
        machine::{CODE, Machine, machine_with},
    },
};

#[test]
fn a_released_port_falls_back_to_nobody() {
    let (device, neighbour) = (Arc::<Recorder>::default(), Arc::<Recorder>::default());
    let mut bus = PortBus::default();
    bus.claim(0x60..=0x6F, device.clone()).unwrap();
    bus.claim(0x70..=0x73, neighbour.clone()).unwrap();
    assert_eq!(bus.read(0x60, AccessWidth::Dword), (PATTERN as u32, Answer::Device));
    assert!(bus.release(0x6F));
    for port in 0x60..=0x6F {
        assert_eq!(bus.read(port, AccessWidth::Byte), (0xFF, Answer::Nobody));
        assert_eq!(bus.write(port, AccessWidth::Byte, 1), Answer::Nobody);
    }
    assert_eq!(device.take(), []);
    assert_eq!(bus.write(0x70, AccessWidth::Dword, 7), Answer::Device);
    assert_eq!(neighbour.take(), [(0, AccessWidth::Dword, 7)]);
    // Numbers of claims are not given out twice while one can still lead to the wrong device.
    bus.claim(0x60..=0x60, Arc::<Recorder>::default()).unwrap();
    assert_eq!(bus.write(0x61, AccessWidth::Byte, 1), Answer::Nobody);
    assert_eq!(bus.write(0x70, AccessWidth::Dword, 8), Answer::Device);
    assert_eq!(neighbour.take(), [(0, AccessWidth::Dword, 8)]);
}

#[test]
fn released_memory_space_falls_back_to_nobody() {
    let (device, at) = (Arc::<Recorder>::default(), GuestPhysAddr::new(0xF000_0000));
    let mut bus = MmioBus::default();
    bus.claim(at, 0x1000, device.clone()).unwrap();
    assert_eq!(bus.write(at, AccessWidth::Qword, 1), Answer::Device);
    assert!(bus.release(at));
    assert_eq!(bus.write(at, AccessWidth::Qword, 2), Answer::Nobody);
    assert_eq!(bus.read(at, AccessWidth::Qword), (u64::MAX, Answer::Nobody));
    assert_eq!(device.take().len(), 1);
}

/// A machine whose hooks were added and taken back again.
fn unhooked() -> (Machine, Arc<Hook>) {
    let hook = Arc::<Hook>::default();
    let machine = machine_with(1, |builder| {
        let hooks = builder.hooks();
        hooks.add_msrs(0x4000_0000..=0x4000_000F, hook.clone());
        hooks.add_cpuid(1..=1, hook.clone());
        hooks.add_hypercalls(7..=9, hook.clone());
        assert!(hooks.remove_msrs(&(0x4000_0000..=0x4000_000F)));
        assert!(hooks.remove_cpuid(&(1..=1)));
        assert!(hooks.remove_hypercalls(&(7..=9)));
    });
    (machine, hook)
}

#[test]
fn removed_hooks_bring_the_policy_back() {
    let (mut machine, hook) = unhooked();
    machine.registers().next_rip = Some(CODE);
    machine.set_gpr(Gpr::Rcx, 0x4000_0001);
    assert_eq!(machine.handle(Exit::ReadMsr), Err(Exception::GENERAL_PROTECTION));
    assert_eq!(machine.handle(Exit::WriteMsr), Err(Exception::GENERAL_PROTECTION));
    assert!(hook.writes.lock().unwrap().is_empty());
    machine.set_gpr(Gpr::Rax, 7);
    machine.handle(Exit::Hypercall).unwrap();
    assert_eq!(machine.gpr(Gpr::Rax), (-1000_i64) as u64, "no such call");
    let mut untouched = machine_with(1, |_| {});
    for machine in [&mut machine, &mut untouched] {
        machine.registers().next_rip = Some(CODE);
        machine.set_gpr(Gpr::Rax, 1);
        machine.set_gpr(Gpr::Rcx, 0);
        machine.handle(Exit::Cpuid).unwrap();
    }
    for register in [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx] {
        assert_eq!(machine.gpr(register), untouched.gpr(register), "{register:?}");
    }
}
