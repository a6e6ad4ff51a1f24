// SPDX-License-Identifier: MIT OR Apache-2.0
use std::sync::{
    Mutex as StdMutex,
    atomic::{AtomicBool, Ordering},
};

use proptest::prelude::*;
use vmm_core::{DeliveryMode, Destination};

use super::*;
use crate::test_support::through_json;

#[derive(Default)]
struct Bus {
    messages: StdMutex<Vec<ApicMessage>>,
    refuses: AtomicBool,
}

impl Bus {
    fn take(&self) -> Vec<ApicMessage> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }
}

impl ApicBus for Bus {
    fn deliver(&self, message: ApicMessage) -> bool {
        self.messages.lock().unwrap().push(message);
        !self.refuses.load(Ordering::SeqCst)
    }
}

fn ioapic() -> (Arc<IoApic>, Arc<Bus>) {
    let bus = Arc::new(Bus::default());
    (IoApic::new(1, bus.clone()), bus)
}

fn write(ioapic: &IoApic, index: u8, value: u32) {
    assert!(ioapic.write_mmio(SELECT, AccessWidth::Dword, u64::from(index)));
    assert!(ioapic.write_mmio(WINDOW, AccessWidth::Dword, u64::from(value)));
}

fn read(ioapic: &IoApic, index: u8) -> u32 {
    ioapic.write_mmio(SELECT, AccessWidth::Dword, u64::from(index));
    ioapic.read_mmio(WINDOW, AccessWidth::Dword).unwrap() as u32
}

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

fn route(ioapic: &IoApic, input: u8, low: u32, high: u32) {
    write(ioapic, FIRST_ENTRY + 2 * input + 1, high);
    write(ioapic, FIRST_ENTRY + 2 * input, low);
}

fn fixed(vector: u8, level_triggered: bool) -> ApicMessage {
    ApicMessage {
        destination: Destination::Physical(3),
        delivery: DeliveryMode::Fixed,
        vector: Vector(vector),
        level_triggered,
    }
}

#[test]
fn registers_read_as_the_data_sheet_says() {
    let (ioapic, _) = ioapic();
    assert_eq!(read(&ioapic, ID), 0x0100_0000);
    assert_eq!(read(&ioapic, VERSION), 0x0017_0020);
    write(&ioapic, ID, 0xFFFF_FFFF);
    assert_eq!(read(&ioapic, ID), 0x0F00_0000);
    assert_eq!(read(&ioapic, ARBITRATION), 0x0F00_0000);
    assert_eq!(read(&ioapic, FIRST_ENTRY), MASKED);
    assert_eq!(read(&ioapic, 0x40), 0);
    write(&ioapic, FIRST_ENTRY + 2, 0xFFFF_FFFF);
    write(&ioapic, FIRST_ENTRY + 3, 0xFFFF_FFFF);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 2), WRITABLE_LOW);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 3), 0xFF00_0000);
}

const WRITABLE_LOW: u32 = 0x0001_AFFF;

#[test]
fn other_widths_are_defined() {
    let (ioapic, _) = ioapic();
    assert!(ioapic.write_mmio(SELECT, AccessWidth::Byte, 0xAB01));
    assert_eq!(ioapic.read_mmio(SELECT, AccessWidth::Qword), Some(1));
    assert_eq!(ioapic.read_mmio(WINDOW, AccessWidth::Byte), Some(0x20));
    assert_eq!(ioapic.read_mmio(WINDOW, AccessWidth::Qword), Some(0x0017_0020));
    ioapic.write_mmio(SELECT, AccessWidth::Dword, u64::from(FIRST_ENTRY));
    assert!(!ioapic.write_mmio(WINDOW, AccessWidth::Word, 0));
    assert_eq!(read(&ioapic, FIRST_ENTRY), MASKED);
    assert_eq!(ioapic.read_mmio(0x14, AccessWidth::Dword), None);
    assert!(!ioapic.write_mmio(0xFFC, AccessWidth::Dword, 0));
}

#[test]
fn an_edge_is_one_message() {
    let (ioapic, bus) = ioapic();
    route(&ioapic, 4, 0x34, 3 << 24);
    ioapic.set_input(4, true);
    ioapic.set_input(4, true);
    assert_eq!(bus.take(), [fixed(0x34, false)]);
    ioapic.set_input(4, false);
    ioapic.set_input(4, true);
    assert_eq!(bus.take(), [fixed(0x34, false)]);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 8), 0x34);
}

#[test]
fn edges_on_a_masked_input_are_lost() {
    let (ioapic, bus) = ioapic();
    route(&ioapic, 4, 0x34 | MASKED, 3 << 24);
    ioapic.set_input(4, true);
    route(&ioapic, 4, 0x34, 3 << 24);
    assert_eq!(bus.take(), []);
}

#[test]
fn a_level_is_delivered_until_it_falls() {
    let (ioapic, bus) = ioapic();
    route(&ioapic, 9, 0x59 | LEVEL, 3 << 24);
    ioapic.set_input(9, true);
    assert_eq!(bus.take(), [fixed(0x59, true)]);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 18), 0x59 | LEVEL | REMOTE_IRR);
    ioapic.set_input(9, false);
    ioapic.set_input(9, true);
    assert_eq!(bus.take(), []);
    ioapic.end_of_interrupt(Vector(0x58));
    assert_eq!(bus.take(), []);
    ioapic.end_of_interrupt(Vector(0x59));
    assert_eq!(bus.take(), [fixed(0x59, true)]);
    ioapic.set_input(9, false);
    assert!(ioapic.write_mmio(EOI, AccessWidth::Dword, 0x59));
    assert_eq!(bus.take(), []);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 18), 0x59 | LEVEL);
}

#[test]
fn unmasking_an_asserted_level_delivers() {
    let (ioapic, bus) = ioapic();
    route(&ioapic, 20, 0x70 | LEVEL | MASKED, 3 << 24);
    ioapic.set_input(20, true);
    assert_eq!(bus.take(), []);
    route(&ioapic, 20, 0x70 | LEVEL, 3 << 24);
    assert_eq!(bus.take(), [fixed(0x70, true)]);
    // Masked while in service: the end of interrupt does not deliver again, unmasking does.
    route(&ioapic, 20, 0x70 | LEVEL | MASKED, 3 << 24);
    ioapic.end_of_interrupt(Vector(0x70));
    assert_eq!(bus.take(), []);
    route(&ioapic, 20, 0x70 | LEVEL, 3 << 24);
    assert_eq!(bus.take(), [fixed(0x70, true)]);
}

#[test]
fn edge_mode_clears_the_remote_irr() {
    let (ioapic, bus) = ioapic();
    route(&ioapic, 9, 0x59 | LEVEL, 3 << 24);
    ioapic.set_input(9, true);
    route(&ioapic, 9, 0x59 | MASKED, 3 << 24);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 18), 0x59 | MASKED);
    bus.take();
    route(&ioapic, 9, 0x59 | LEVEL, 3 << 24);
    assert_eq!(bus.take(), [fixed(0x59, true)]);
}

#[test]
fn a_refused_level_is_tried_again() {
    let (ioapic, bus) = ioapic();
    bus.refuses.store(true, Ordering::SeqCst);
    route(&ioapic, 9, 0x59 | LEVEL, 3 << 24);
    ioapic.set_input(9, true);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 18), 0x59 | LEVEL);
    bus.refuses.store(false, Ordering::SeqCst);
    bus.take();
    route(&ioapic, 9, 0x59 | LEVEL, 3 << 24);
    assert_eq!(bus.take(), [fixed(0x59, true)]);
}

#[test]
fn destinations_and_modes_are_carried_over() {
    let (ioapic, bus) = ioapic();
    for (input, mode) in [(0, 7), (1, 4), (5, 1), (6, 2), (7, 5)] {
        // All of them programmed as level-triggered with a logical destination.
        route(&ioapic, input, 0x80 | mode << 8 | 1 << 11 | LEVEL, 0x0F << 24);
        ioapic.set_input(u32::from(input), true);
        let expected = ApicMessage {
            destination: Destination::Logical(0x0F),
            delivery: DeliveryMode::from_bits(mode as u8).unwrap(),
            vector: Vector(0x80),
            level_triggered: mode == 1,
        };
        assert_eq!(bus.take(), [expected]);
    }
    for (input, reserved) in [(8, 3), (10, 6)] {
        route(&ioapic, input, 0x80 | reserved << 8, 0);
        ioapic.set_input(u32::from(input), true);
    }
    assert_eq!(bus.take(), []);
    route(&ioapic, 11, 0x81, 0xFF << 24);
    ioapic.set_input(11, true);
    assert_eq!(bus.take()[0].destination, Destination::All);
}

#[test]
fn one_vector_on_two_inputs_ends_on_both() {
    let (ioapic, bus) = ioapic();
    for input in [16, 17] {
        route(&ioapic, input, 0x61 | LEVEL, 3 << 24);
        ioapic.set_input(u32::from(input), true);
    }
    bus.take();
    ioapic.set_input(16, false);
    ioapic.end_of_interrupt(Vector(0x61));
    assert_eq!(bus.take(), [fixed(0x61, true)]);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 32) & REMOTE_IRR, 0);
    assert_eq!(read(&ioapic, FIRST_ENTRY + 34) & REMOTE_IRR, REMOTE_IRR);
}

#[test]
fn a_restored_ioapic_goes_on() {
    let (ioapic, _) = ioapic();
    route(&ioapic, 9, 0x59 | LEVEL, 3 << 24);
    ioapic.set_input(9, true);
    let bus = Arc::new(Bus::default());
    let other = IoApic::new(0, bus.clone());
    other.restore(through_json(&ioapic.save()));
    assert_eq!(bus.take(), []);
    other.end_of_interrupt(Vector(0x59));
    assert_eq!(bus.take(), [fixed(0x59, true)]);
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics(
        steps in prop::collection::vec((0u8..5, 0u64..0x60, any::<u64>(), 0usize..4), 0..200)
    ) {
        let (ioapic, bus) = ioapic();
        for (what, offset, value, width) in steps {
            let width = AccessWidth::from_bytes(1 << width).unwrap();
            let offset = if offset & 1 == 0 { offset } else { WINDOW };
            match what {
                0 => drop(ioapic.read_mmio(offset, width)),
                1 => drop(ioapic.write_mmio(offset, width, value)),
                2 => drop(ioapic.write_mmio(SELECT, width, value & 0x3F)),
                3 => ioapic.set_input((value & 0x1F) as u32, value & 0x20 != 0),
                _ => ioapic.end_of_interrupt(Vector(value as u8)),
            }
        }
        drop(bus);
    }
}
