// SPDX-License-Identifier: MIT OR Apache-2.0
//! Offsets, counts and times at the ends of their ranges, in every device register.

use std::sync::Arc;

use host_mock::MockHost;
use proptest::prelude::*;
use vmm_core::{
    AccessWidth, ApicBus, ApicMessage, Doorbell, IrqLine, MmioDevice, PortDevice, Timer, TimerBank,
    VmClock, VmControl, VmInstant,
};

use crate::{
    ExitPort, Hpet, IoApic, LegacyReplacement, Pic, Pit, PortRange, Uart,
    pci::{ConfigPorts, Ecam, FunctionAddress, HostBridge, PciBus},
    pm::PmBlock,
    reset::{
        KeyboardCommand, KeyboardControllerReset, KeyboardData, ResetControl, SystemControlPortA,
    },
    test_support::LineProbe,
};

struct Quiet;

impl ApicBus for Quiet {
    fn deliver(&self, _: ApicMessage) -> bool {
        true
    }
}

struct Machine {
    host: &'static MockHost,
    clock: VmClock,
    bank: Arc<TimerBank>,
    ports: Vec<Arc<dyn PortDevice>>,
    windows: Vec<Arc<dyn MmioDevice>>,
    hpet: Arc<Hpet>,
    line: Arc<LineProbe>,
}

/// Every device that has registers, but for those that need an image.
fn machine() -> Machine {
    let host = MockHost::leak(1);
    let clock = VmClock::start(host);
    let bank = TimerBank::new(Doorbell::disconnected());
    let probe = Arc::new(LineProbe::default());
    let line = || -> IrqLine { probe.line() };
    let control = VmControl::new();
    let timer = |number| Timer::new(&bank, number).unwrap();
    let replacement = LegacyReplacement::new(line(), line());
    let inputs = [(); 4].map(|()| line());
    let hpet = Hpet::new(clock, timer(0), replacement, inputs);
    let bus = Arc::new(PciBus::new());
    bus.attach(FunctionAddress::HOST_BRIDGE, Arc::new(HostBridge::new())).unwrap();
    let reset = Arc::new(ResetControl::new(control.clone()));
    let keyboard = Arc::new(KeyboardControllerReset::new(control.clone()));
    let mut ports: Vec<Arc<dyn PortDevice>> = vec![
        Arc::new(ConfigPorts::new(bus.clone(), reset.clone())),
        reset,
        Arc::new(SystemControlPortA::new(control.clone())),
        Arc::new(KeyboardData(keyboard.clone())),
        Arc::new(KeyboardCommand(keyboard)),
        Arc::new(ExitPort::new(control.clone())),
        PmBlock::new(clock, control, line(), timer(1)),
    ];
    let pit = Pit::new(clock, timer(2), line());
    let pic = Pic::new(Doorbell::disconnected());
    let uart = Uart::new(0x3F8, line(), None);
    let ranges = pit.ports().into_iter().chain(pic.ports()).chain([uart.ports()]);
    ports.extend(ranges.map(|PortRange { device, .. }| device));
    let windows: Vec<Arc<dyn MmioDevice>> =
        vec![hpet.clone(), IoApic::new(1, Arc::new(Quiet)), Arc::new(Ecam::new(bus))];
    Machine { host, clock, bank, ports, windows, hpet, line: probe }
}

const WIDTHS: [AccessWidth; 4] =
    [AccessWidth::Byte, AccessWidth::Word, AccessWidth::Dword, AccessWidth::Qword];
const VALUES: [u64; 6] = [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, u64::MAX];

#[test]
fn port_registers_take_any_offset_width_and_value() {
    let machine = machine();
    for device in &machine.ports {
        for offset in (0..0x20).chain([0x7FFF, 0x8000, 0xFFF8, 0xFFFC, 0xFFFE, 0xFFFF]) {
            for width in WIDTHS.into_iter().filter(|width| *width <= AccessWidth::Dword) {
                for value in VALUES {
                    device.write_port(offset, width, value as u32);
                    let read = device.read_port(offset, width).unwrap_or(0);
                    assert_eq!(u64::from(read) & !width.all_ones(), 0, "{}", device.name());
                }
            }
        }
    }
}

#[test]
fn memory_registers_take_any_offset_width_and_value() {
    let machine = machine();
    for device in &machine.windows {
        let edges = [0, 0x10, 0x100, 0x400, 0x1000, 1 << 32, 1 << 63, 0];
        let around = edges.into_iter().flat_map(|edge: u64| {
            (0..9).flat_map(move |near| [edge.wrapping_add(near), edge.wrapping_sub(near)])
        });
        for offset in around {
            for width in WIDTHS {
                for value in VALUES {
                    device.write_mmio(offset, width, value);
                    let read = device.read_mmio(offset, width).unwrap_or(0);
                    assert_eq!(read & !width.all_ones(), 0, "{}: {offset:#x}", device.name());
                }
            }
        }
    }
}

#[test]
fn an_index_register_names_nothing_beyond_its_table() {
    let ioapic = IoApic::new(1, Arc::new(Quiet));
    // Two dwords for each of 24 inputs, from 0x10 on.
    for index in 0..=0xFF_u64 {
        ioapic.write_mmio(0, AccessWidth::Dword, index);
        ioapic.write_mmio(0x10, AccessWidth::Dword, 0xFFFF_FFFF);
        let value = ioapic.read_mmio(0x10, AccessWidth::Dword).unwrap();
        let exists = index < 3 || (0x10..0x10 + 48).contains(&index);
        assert!(exists || value == 0, "{index:#x}: {value:#x}");
    }
    assert_eq!(ioapic.read_mmio(0x20, AccessWidth::Dword), None);
}

const ENABLE: u64 = 1;
const TIMER_INTERRUPTS: u64 = 1 << 2;
const ROUTE_20: u64 = 20 << 9;

#[test]
fn a_match_beyond_the_wrap_of_the_counter_comes_when_it_wraps() {
    let machine = machine();
    let write = |register, value| {
        assert!(machine.hpet.write_mmio(register, AccessWidth::Qword, value));
    };
    write(0xF0, u64::MAX - 5_000_000);
    write(0x108, 3_000_000);
    write(0x100, TIMER_INTERRUPTS | ROUTE_20);
    write(0x10, ENABLE);
    let armed = machine.bank.earliest().expect("an interrupt is ahead");
    assert_eq!(armed.since(machine.clock.now()) / 10, 8_000_001);
    machine.host.advance(armed.since(machine.clock.now()) + 10);
    machine.bank.expire(machine.clock.now());
    assert_eq!(machine.hpet.read_mmio(0xF0, AccessWidth::Qword).unwrap() / 1_000_000, 3);
    assert_eq!(machine.line.take_rises(), 1);
}

proptest! {
    #[test]
    fn time_at_the_end_of_its_range_overflows_nowhere(
        steps in prop::collection::vec((0usize..16, any::<u64>(), 0u32..64, any::<u64>()), 1..30)
    ) {
        let machine = machine();
        for (which, offset, shift, value) in steps {
            if let Some(device) = machine.windows.get(which) {
                device.write_mmio(offset >> shift & !7, AccessWidth::Qword, value);
                device.read_mmio(offset >> shift & !7, AccessWidth::Qword);
            } else if let Some(device) = machine.ports.get(which - machine.windows.len()) {
                device.write_port(offset as u16 >> (shift % 16), AccessWidth::Byte, value as u32);
                device.read_port(offset as u16 >> (shift % 16), AccessWidth::Byte);
            }
            machine.host.advance(value >> shift >> 2);
            machine.bank.expire(machine.clock.now());
            machine.bank.expire(VmInstant(u64::MAX));
        }
    }
}
