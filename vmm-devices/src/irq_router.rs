// SPDX-License-Identifier: MIT OR Apache-2.0
//! The wires from devices to both interrupt controllers.

use alloc::sync::Arc;

use vmm_core::{InterruptInputs, IrqLine};

/// Number of ISA interrupt lines.
const ISA_LINES: u32 = 16;
/// The timer's ISA line, and the I/O APIC input it is wired to.
const TIMER_IRQ: u32 = 0;
const TIMER_INPUT: u32 = 2;
/// The ISA line that the second 8259A occupies.
const CASCADE_IRQ: u32 = 2;

/// Takes the 16 ISA lines to the 8259A pair and to the I/O APIC, and the lines above them to
/// the I/O APIC alone.
///
/// A line is named by its ISA IRQ number below 16 and by its global system interrupt (ACPI
/// specification, 5.2.13) from there on. IRQ 0 arrives at I/O APIC input 2, which the MADT
/// has to tell the guest by an interrupt source override. IRQ 2 does not exist: its place is
/// taken by the cascade.
///
/// Every line has one driver; the router keeps no state and holds no lock. Locks are taken
/// in the order device, 8259A pair, and device, I/O APIC; the I/O APIC holds none while it
/// delivers to the APIC bus.
pub struct IrqRouter {
    pic: Arc<dyn InterruptInputs>,
    ioapic: Arc<dyn InterruptInputs>,
}

impl IrqRouter {
    /// The line of the ACPI system control interrupt. It is level-triggered, which the MADT
    /// has to say.
    pub const SCI: u32 = 9;

    /// Wires to the inputs of `pic` and `ioapic`.
    pub fn new(pic: Arc<dyn InterruptInputs>, ioapic: Arc<dyn InterruptInputs>) -> Arc<Self> {
        Arc::new(Self { pic, ioapic })
    }

    /// Line number `line`, for the one device that drives it.
    pub fn line(self: &Arc<Self>, line: u32) -> IrqLine {
        IrqLine::new(self.clone(), line)
    }

    /// The line of the ACPI system control interrupt.
    pub fn sci(self: &Arc<Self>) -> IrqLine {
        self.line(Self::SCI)
    }
}

impl InterruptInputs for IrqRouter {
    fn set_input(&self, input: u32, asserted: bool) {
        if input == CASCADE_IRQ {
            return;
        }
        if input < ISA_LINES {
            self.pic.set_input(input, asserted);
        }
        let pin = if input == TIMER_IRQ { TIMER_INPUT } else { input };
        self.ioapic.set_input(pin, asserted);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use host_mock::MockHost;
    use vmm_core::{
        AccessWidth, ApicBus, ApicMessage, Doorbell, ExternalInterruptSource, MmioDevice, Timer,
        TimerBank, VcpuLink, Vector, VmClock,
    };

    use super::*;
    use crate::{IoApic, Pic, Pit};

    type Change = (u32, bool);

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Change>>);

    impl InterruptInputs for Recorder {
        fn set_input(&self, input: u32, asserted: bool) {
            self.0.lock().unwrap().push((input, asserted));
        }
    }

    /// The changes that the 8259A pair and the I/O APIC see.
    fn routed(line: u32) -> (Vec<Change>, Vec<Change>) {
        let (pic, ioapic) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
        IrqRouter::new(pic.clone(), ioapic.clone()).line(line).set(true);
        let taken = |r: &Recorder| std::mem::take(&mut *r.0.lock().unwrap());
        (taken(&pic), taken(&ioapic))
    }

    #[test]
    fn isa_lines_reach_both_controllers() {
        assert_eq!(routed(4), (vec![(4, true)], vec![(4, true)]));
        assert_eq!(routed(15), (vec![(15, true)], vec![(15, true)]));
    }

    #[test]
    fn the_timer_reaches_ioapic_input_two() {
        assert_eq!(routed(0), (vec![(0, true)], vec![(2, true)]));
        assert_eq!(routed(2), (vec![], vec![]));
    }

    #[derive(Default)]
    struct Bus(Mutex<Vec<ApicMessage>>);

    impl ApicBus for Bus {
        fn deliver(&self, message: ApicMessage) -> bool {
            self.0.lock().unwrap().push(message);
            true
        }
    }

    /// From the guest's programming of the timer to both ways into its CPU.
    #[test]
    fn a_timer_tick_reaches_the_cpu() {
        let host = MockHost::leak(1);
        let link = Arc::new(VcpuLink::default());
        let pic = Pic::new(Doorbell::new(host, link.clone()));
        let bus = Arc::new(Bus::default());
        let ioapic = IoApic::new(0, bus.clone());
        let router = IrqRouter::new(pic.clone(), ioapic.clone());
        let bank = TimerBank::new(Doorbell::disconnected());
        let clock = VmClock::start(host);
        let pit = Pit::new(clock, Timer::new(&bank, 0).unwrap(), router.line(0));
        let [pic_ports, ..] = pic.ports();
        let [pit_ports, ..] = pit.ports();
        let byte = AccessWidth::Byte;

        assert!(pic_ports.device.write_port(1, byte, 0xFE));
        assert!(ioapic.write_mmio(0x00, AccessWidth::Dword, 0x14));
        assert!(ioapic.write_mmio(0x10, AccessWidth::Dword, 0x31));
        for (offset, value) in [(3, 0x34), (0, 0x10), (0, 0x27)] {
            assert!(pit_ports.device.write_port(offset, byte, value));
        }
        assert!(!pit_ports.device.write_port(0, AccessWidth::Word, 0));
        assert_eq!(pit_ports.device.read_port(0, AccessWidth::Word), None);
        let deadline = bank.earliest().unwrap();
        host.advance(deadline.0);
        bank.expire(clock.now());

        assert!(link.needs_attention());
        assert!(pic.pending());
        assert_eq!(pic.acknowledge(), Some(Vector(0x08)));
        let vectors: Vec<Vector> = bus.0.lock().unwrap().iter().map(|m| m.vector).collect();
        assert_eq!(vectors, [Vector(0x31)]);
    }

    #[test]
    fn higher_lines_reach_the_ioapic_only() {
        assert_eq!(routed(16), (vec![], vec![(16, true)]));
    }
}
