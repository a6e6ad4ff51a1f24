// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O APICs (Intel 82093AA data sheet).

use alloc::vec::Vec;
use core::ptr::NonNull;

use crate::{
    acpi::{InterruptOverride, IoApicEntry, Polarity, Trigger},
    cpu::percpu::BOOT_CPU,
    irq_lock::IrqLock,
    memory::map_device,
};

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

struct IoApic {
    registers: NonNull<u32>,
    first_gsi: u32,
    inputs: u32,
}

// SAFETY: the registers are mapped on all CPUs; access is behind a lock.
unsafe impl Send for IoApic {}

static IO_APICS: IrqLock<Vec<IoApic>> = IrqLock::new(Vec::new());

impl IoApic {
    fn read(&mut self, register: u32) -> u32 {
        // SAFETY: index register at 0, data register at 0x10 of a mapped I/O APIC.
        unsafe {
            self.registers.write_volatile(register);
            self.registers.add(4).read_volatile()
        }
    }

    fn write(&mut self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe {
            self.registers.write_volatile(register);
            self.registers.add(4).write_volatile(value);
        }
    }

    fn set(&mut self, input: u32, low: u32, apic_id: u32) {
        self.write(REDIRECTION + input * 2, MASKED);
        self.write(REDIRECTION + input * 2 + 1, apic_id << 24);
        self.write(REDIRECTION + input * 2, low);
    }
}

/// Maps the I/O APICs and masks all inputs.
pub(crate) fn init(entries: &[IoApicEntry]) {
    for entry in entries {
        let registers = match map_device(entry.address, 4096) {
            Ok(registers) => registers.cast(),
            Err(error) => {
                log::warn!("I/O APIC at {}: {error}", entry.address);
                continue;
            }
        };
        let mut io_apic = IoApic { registers, first_gsi: entry.first_gsi, inputs: 0 };
        io_apic.inputs = (io_apic.read(VERSION) >> 16 & 0xFF) + 1;
        for input in 0..io_apic.inputs {
            io_apic.set(input, MASKED, 0);
        }
        IO_APICS.lock().push(io_apic);
    }
}

/// Lets a line interrupt the boot CPU with `vector`; false if no I/O APIC has that line or it
/// cannot address the boot CPU.
pub(crate) fn route(line: &InterruptOverride, vector: u8) -> bool {
    let apic_id = BOOT_CPU.apic_id.load(core::sync::atomic::Ordering::Relaxed);
    let mut io_apics = IO_APICS.lock();
    let found = io_apics.iter_mut().find_map(|io_apic| {
        let input = line.gsi.checked_sub(io_apic.first_gsi)?;
        (input < io_apic.inputs).then_some((io_apic, input))
    });
    let Some((io_apic, input)) = found.filter(|_| apic_id <= 0xFF) else { return false };
    let trigger = if line.trigger == Trigger::Level { LEVEL } else { 0 };
    let polarity = if line.polarity == Polarity::Low { ACTIVE_LOW } else { 0 };
    io_apic.set(input, u32::from(vector) | trigger | polarity, apic_id);
    true
}
