// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration accesses with every bit of the address register: those that are reserved, those
//! that some chipsets use for extended registers, and numbers of functions that do not exist.
//! An index made of them once reached beyond the configuration space.

use std::sync::Arc;

use spin::Mutex;
use vmm_core::{AccessWidth, MmioDevice, PortDevice, VmControl};

use crate::{
    pci::{
        ConfigPorts, ConfigRegister, ECAM_BYTES, Ecam, FunctionAddress, HostBridge, PciBus,
        PciFunction,
    },
    reset::ResetControl,
};

const ADDRESS: u16 = 0;
const DATA: u16 = 4;
const ENABLE: u32 = 1 << 31;
const DEFINED: u32 = ENABLE | 0x00FF_FFFC;

/// Notes the registers that are accessed.
#[derive(Default)]
struct Noted(Mutex<Vec<usize>>);

impl PciFunction for Noted {
    fn name(&self) -> &str {
        "noting function"
    }
    fn read_config(&self, register: ConfigRegister) -> u32 {
        self.0.lock().push(register.index());
        0x1234_5678
    }
    fn write_config(&self, register: ConfigRegister, _: u32, _: u32) {
        self.0.lock().push(register.index());
    }
}

const LAST: FunctionAddress = FunctionAddress::from_bits(0xFFFF);

/// A bus with its first and its last function, and the ports that lead there.
fn machine() -> (ConfigPorts, Arc<PciBus>, Arc<Noted>) {
    let (bus, noted) = (Arc::new(PciBus::new()), Arc::<Noted>::default());
    bus.attach(FunctionAddress::HOST_BRIDGE, Arc::new(HostBridge::new())).unwrap();
    bus.attach(LAST, noted.clone()).unwrap();
    let reset = Arc::new(ResetControl::new(VmControl::new()));
    (ConfigPorts::new(bus.clone(), reset), bus, noted)
}

#[test]
fn reserved_address_bits_are_not_kept() {
    let (ports, ..) = machine();
    for value in (0..32).map(|bit| 1 << bit).chain([0, u32::MAX, 0x7FFF_FFFF, 0x0F00_0000]) {
        assert!(ports.write_port(ADDRESS, AccessWidth::Dword, value));
        assert_eq!(ports.read_port(ADDRESS, AccessWidth::Dword), Some(value & DEFINED));
    }
}

#[test]
fn every_bit_leads_to_a_register_that_exists_or_to_nothing() {
    let (ports, _, noted) = machine();
    for low in 0..=0xFF_u32 {
        for reserved in 0..0x80 {
            let address = ENABLE | reserved << 24 | 0xFF_FF00 | low;
            ports.write_port(ADDRESS, AccessWidth::Dword, address);
            for (offset, width) in [
                (DATA, AccessWidth::Dword),
                (DATA + 2, AccessWidth::Word),
                (DATA + 3, AccessWidth::Byte),
            ] {
                assert!(ports.read_port(offset, width).is_some());
                assert!(ports.write_port(offset, width, u32::MAX));
            }
            let seen = std::mem::take(&mut *noted.0.lock());
            // Bits 24 to 27 are no part of the register number: 64 dwords are reached, no more.
            assert_eq!(seen, [low as usize >> 2; 6], "{address:#x}");
        }
    }
}

#[test]
fn data_accesses_do_not_run_on_into_the_next_register() {
    let (ports, _, noted) = machine();
    ports.write_port(ADDRESS, AccessWidth::Dword, u32::MAX);
    for (offset, width) in [
        (DATA + 1, AccessWidth::Dword),
        (DATA + 3, AccessWidth::Word),
        (DATA + 4, AccessWidth::Byte),
        (DATA, AccessWidth::Qword),
        (u16::MAX, AccessWidth::Dword),
    ] {
        assert_eq!(ports.read_port(offset, width), None, "{offset} {width:?}");
        assert!(!ports.write_port(offset, width, 0));
    }
    assert!(noted.0.lock().is_empty());
}

#[test]
fn addresses_of_functions_that_do_not_exist_reach_nobody() {
    let (ports, _, noted) = machine();
    for function in 1..0xFFFF_u32 {
        ports.write_port(ADDRESS, AccessWidth::Dword, ENABLE | function << 8 | 0xFC);
        assert_eq!(ports.read_port(DATA, AccessWidth::Dword), Some(u32::MAX), "{function:#x}");
        assert!(!ports.write_port(DATA, AccessWidth::Dword, 0));
    }
    assert!(noted.0.lock().is_empty());
}

#[test]
fn registers_beyond_the_first_256_bytes_are_empty_and_cannot_be_written() {
    let (_, bus, _) = machine();
    let ecam = Ecam::new(bus);
    for offset in (0x100..0x1000).step_by(4) {
        assert!(ecam.write_mmio(offset, AccessWidth::Dword, u64::MAX));
        assert_eq!(ecam.read_mmio(offset, AccessWidth::Dword), Some(0), "{offset:#x}");
    }
    assert_eq!(ecam.read_mmio(0, AccessWidth::Dword), Some(0x0008_1B36));
}

#[test]
fn no_offset_into_the_window_leaves_it() {
    let (_, bus, noted) = machine();
    let ecam = Ecam::new(bus);
    for edge in [ECAM_BYTES, 1 << 28, 1 << 32, 1 << 63, u64::MAX] {
        for offset in (0..16).map(|back| edge.wrapping_sub(back)).filter(|at| *at >= ECAM_BYTES) {
            for bytes in [1, 2, 4, 8] {
                let width = AccessWidth::from_bytes(bytes).unwrap();
                assert_eq!(ecam.read_mmio(offset, width), None, "{offset:#x} {width:?}");
                assert!(!ecam.write_mmio(offset, width, 0));
            }
        }
    }
    assert!(noted.0.lock().is_empty());
}
