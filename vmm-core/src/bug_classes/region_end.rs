// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operands across the end of a device, of a page, or of memory.

use std::sync::Arc;

use crate::{
    AccessWidth, Exit, GuestPhysAddr, NestedPageFault,
    bus::{Answer, MmioBus},
    emulate::{
        Outcome,
        tests::machine::{DATA, DEVICE, Event, Machine},
    },
    memory::MIN_MEMORY,
    state::{Exception, Gpr},
    vcpu::tests::{
        devices::Recorder,
        machine::{CODE, machine_with},
    },
};

const DONE: Outcome = Outcome::Done { debug_trap: false };
const WIDTHS: [AccessWidth; 4] =
    [AccessWidth::Byte, AccessWidth::Word, AccessWidth::Dword, AccessWidth::Qword];

#[test]
fn no_access_that_begins_or_ends_outside_reaches_a_device() {
    const START: u64 = 0xFED0_0000;
    const BYTES: u64 = 0x400;
    let device = Arc::<Recorder>::default();
    let mut bus = MmioBus::default();
    bus.claim(GuestPhysAddr::new(START), BYTES, device.clone()).unwrap();
    for width in WIDTHS {
        let bytes = width.bytes() as u64;
        for address in (START - 9..START + 9).chain(START + BYTES - 9..START + BYTES + 9) {
            let inside = START <= address && address + bytes <= START + BYTES;
            let answers = inside && address != START + 8;
            let answer = bus.write(GuestPhysAddr::new(address), width, u64::MAX);
            assert_eq!(answer == Answer::Device, answers, "{address:#x} {width:?}");
            let noted = device.take();
            assert_eq!(noted.is_empty(), !inside, "{address:#x} {width:?}");
            assert!(noted.iter().all(|(offset, ..)| offset + bytes <= BYTES));
            let (value, _) = bus.read(GuestPhysAddr::new(address), width);
            assert!(answers || value == width.all_ones(), "{address:#x} {width:?}");
        }
    }
}

#[test]
fn neighbours_do_not_share_an_access() {
    let (low, high) = (Arc::<Recorder>::default(), Arc::<Recorder>::default());
    let mut bus = MmioBus::default();
    bus.claim(GuestPhysAddr::new(0x1000), 0x10, low.clone()).unwrap();
    bus.claim(GuestPhysAddr::new(0x1010), 0x10, high.clone()).unwrap();
    for address in 0x1009..0x1010 {
        assert_eq!(bus.write(GuestPhysAddr::new(address), AccessWidth::Qword, 0), Answer::Nobody);
    }
    assert!(low.take().is_empty() && high.take().is_empty());
}

#[test]
fn an_operand_across_memory_and_a_device_is_cut_at_the_page() {
    for before in 1..8 {
        // From memory into the device: mov [rbx], rax.
        let mut machine = Machine::long(&[0x48, 0x89, 0x03])
            .set(Gpr::Rbx, DATA + 0x2000 - before)
            .set(Gpr::Rax, 0x8877_6655_4433_2211);
        machine.bus.map(DATA + 0x2000, DEVICE, 7);
        assert_eq!(machine.run(), DONE);
        let mask = (1 << (8 * before)) - 1;
        let low = machine.bus.load(DATA + 0x2000 - before, before);
        assert_eq!(low, 0x8877_6655_4433_2211 & mask);
        let mut next = DEVICE;
        for event in &machine.bus.log {
            let Event::Write(address, width, value) = *event else { panic!("{event:?}") };
            assert_eq!(address, next, "in order and without a gap");
            assert_eq!(address % width.bytes() as u64, 0, "aligned");
            let shift = 8 * (before + address - DEVICE);
            assert_eq!(value, 0x8877_6655_4433_2211 >> shift & width.all_ones());
            next += width.bytes() as u64;
        }
        assert_eq!(next, DEVICE + 8 - before);
        // From the device into memory.
        let mut machine = Machine::long(&[0x48, 0x89, 0x03])
            .set(Gpr::Rbx, DATA + 0x1000 - before)
            .set(Gpr::Rax, 0x8877_6655_4433_2211);
        machine.bus.map(DATA, DEVICE, 7);
        assert_eq!(machine.run(), DONE);
        let high = machine.bus.load(DATA + 0x1000, 8 - before);
        assert_eq!(high, 0x8877_6655_4433_2211 >> (8 * before));
        let reached = machine.bus.log.iter().all(|event| match *event {
            Event::Write(address, width, _) => {
                let bytes = width.bytes() as u64;
                address % bytes == 0 && address + bytes <= DEVICE + 0x1000
            }
            _ => false,
        });
        assert!(reached, "{:?}", machine.bus.log);
    }
}

#[test]
fn an_operand_whose_second_page_faults_reaches_neither_half() {
    let mut machine =
        Machine::long(&[0x48, 0x89, 0x03]).set(Gpr::Rbx, DEVICE + 0xFFC).set(Gpr::Rax, u64::MAX);
    let outcome = machine.run();
    assert!(
        matches!(outcome, Outcome::Fault(fault)
        if fault.fault_address == Some(DEVICE + 0x1000)),
        "{outcome:?}"
    );
    assert_eq!(machine.bus.log, []);
}

/// Executes `mov [ebx], eax` or `mov eax, [ebx]` at the end of a VM's memory.
#[test]
fn an_operand_across_the_end_of_memory_reaches_the_device_behind_it() {
    let device = Arc::<Recorder>::default();
    let mut machine = machine_with(1, |builder| {
        builder.claim_mmio(GuestPhysAddr::new(MIN_MEMORY), 0x1000, device.clone()).unwrap();
    });
    let end = machine.vm.memory().regions().last().unwrap();
    assert_eq!(end.start().as_u64() + end.bytes(), MIN_MEMORY);
    for before in 1..4 {
        let address = MIN_MEMORY - before;
        machine.poke(CODE, &[0x89, 0x03]);
        machine.registers().rip = CODE;
        machine.set_gpr(Gpr::Rbx, address);
        machine.set_gpr(Gpr::Rax, 0x4433_2211);
        let fault = NestedPageFault {
            address: GuestPhysAddr::new(MIN_MEMORY),
            is_write: true,
            is_fetch: false,
            in_page_walk: false,
        };
        let result: Result<(), Exception> = machine.handle(Exit::NestedPageFault(fault));
        assert_eq!(result, Ok(()));
        let mut low = vec![0; before as usize];
        machine.vm.memory().read(GuestPhysAddr::new(address), &mut low).unwrap();
        assert_eq!(low, 0x4433_2211_u32.to_le_bytes()[..before as usize]);
        let rest: Vec<u8> = device
            .take()
            .into_iter()
            .flat_map(|(_, width, value)| value.to_le_bytes()[..width.bytes()].to_vec())
            .collect();
        assert_eq!(rest, 0x4433_2211_u32.to_le_bytes()[before as usize..]);
    }
}
