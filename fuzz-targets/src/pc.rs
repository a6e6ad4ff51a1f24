// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PC and what can happen to it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arbitrary::Arbitrary;
use host_iface::WallClockTime;
use host_mock::MockHost;
use vmm_core::{
    AccessWidth, EoiObserver, ExternalInterruptSource, GuestPhysAddr, HostEventClient, VmInstant,
    memory::MIN_MEMORY,
    vm::{VmBuilder, VmConfig},
};
use vmm_devices::{CharBackend, PcConfig, PcPlatform, TablesBy};

use crate::{host::host, width::Width};

/// Nanoseconds that the guest may be kept from running, and that pass at once.
const LONG: u64 = 10_000_000;
/// Shortest time between two interrupts of one timer that its device allows, in nanoseconds.
const SHORTEST_PERIOD: u64 = 100_000;
/// Timers of the devices.
const TIMERS: u64 = 4;
/// What may come besides: one at each timer that was just programmed, and at each moment that was
/// missed.
const AT_ONCE: u64 = 2 * TIMERS;

/// One thing that happens.
#[derive(Debug, Arbitrary)]
pub enum Step {
    /// The guest reads a port: `at` counts those that are claimed, and some beside them.
    In { at: u16, width: Width },
    /// The guest writes one.
    Out { at: u16, width: Width, value: u32 },
    /// The guest reads a device's memory: which one, and where in it.
    Read { device: u8, offset: u32, width: Width },
    /// The guest writes there.
    Write { device: u8, offset: u32, width: Width, value: u64 },
    /// Time passes, in units of 2 to the power of `scale` nanoseconds.
    Time { amount: u8, scale: u8 },
    /// The CPU takes an interrupt of the 8259A pair.
    Acknowledge,
    /// A local APIC ends an interrupt.
    EndOfInterrupt { vector: u8 },
    /// A device of another kind drives an interrupt line.
    Line { number: u8, asserted: bool },
    /// The far end of the serial line sends.
    Type { bytes: [u8; 3] },
    /// The host has news.
    HostEvent,
    /// All devices are saved and restored.
    SaveAndRestore,
}

/// The far end of the serial line.
#[derive(Default)]
struct Terminal(Mutex<VecDeque<u8>>);

impl CharBackend for Terminal {
    fn write(&self, _: &[u8]) {}

    fn read(&self, buffer: &mut [u8]) -> usize {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(buffer.len());
        buffer.iter_mut().zip(waiting.drain(..count)).for_each(|(to, from)| *to = from);
        count
    }
}

/// A PC without vCPUs.
pub struct Pc {
    host: &'static MockHost,
    builder: VmBuilder,
    /// Its devices.
    pub platform: PcPlatform,
    terminal: Arc<Terminal>,
    /// All ports that are claimed.
    ports: Vec<u16>,
    /// First and last byte of what is claimed of the address space.
    regions: Vec<(GuestPhysAddr, GuestPhysAddr)>,
}

impl Pc {
    pub fn new() -> Self {
        let host = host();
        let config = VmConfig { memory_bytes: MIN_MEMORY, vcpus: 1 };
        let mut builder = VmBuilder::new(host, config).expect("the mock host has memory");
        let terminal = Arc::new(Terminal::default());
        let config = PcConfig {
            console: Some(terminal.clone()),
            exit_port: Some(0xF4),
            time: WallClockTime { unix_seconds: 1_700_000_000, nanoseconds: 0 },
            address_bits: 40,
            tables: TablesBy::Firmware,
        };
        let platform = PcPlatform::new(&mut builder, &config).expect("the PC fits the VM");
        let ports = builder.ports().claims().flat_map(|(ports, _)| ports).collect();
        let claims = builder.mmio().claims();
        let regions = claims.map(|(first, last, _)| (first, last)).collect();
        Self { host, builder, platform, terminal, ports, regions }
    }

    /// True once the guest has switched itself off or reset itself.
    pub fn has_ended(&self) -> bool {
        self.builder.control().ended().is_some()
    }

    /// Has `step` happen, and what it leads to at once.
    pub fn take(&mut self, step: &Step) {
        match *step {
            Step::In { at, width } => {
                self.builder.ports().read(self.port(at), port_width(width));
            }
            Step::Out { at, width, value } => {
                self.builder.ports().write(self.port(at), port_width(width), value);
            }
            Step::Read { device, offset, width } => {
                let width = AccessWidth::from(width);
                let (value, _) = self.builder.mmio().read(self.place(device, offset), width);
                assert_eq!(value & !width.all_ones(), 0, "wider than the access");
            }
            Step::Write { device, offset, width, value } => {
                self.builder.mmio().write(self.place(device, offset), width.into(), value);
            }
            Step::Time { amount, scale } => {
                self.pass((u64::from(amount) + 1) << (scale % 30));
            }
            Step::Acknowledge => {
                let pending = self.platform.pic.pending();
                let vector = self.platform.pic.acknowledge();
                assert!(!pending || vector.is_some(), "a request without a vector");
            }
            Step::EndOfInterrupt { vector } => {
                self.platform.io_apic.end_of_interrupt(vmm_core::Vector(vector));
            }
            Step::Line { number, asserted } => {
                self.platform.irq_router.line(u32::from(number % 32)).set(asserted);
            }
            Step::Type { bytes } => {
                let mut waiting = self.terminal.0.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.len() < 0x100 {
                    waiting.extend(bytes);
                }
            }
            Step::HostEvent => self.platform.com1.host_event(),
            Step::SaveAndRestore => self.save_and_restore(),
        }
        self.serve_timers();
    }

    /// A port that is claimed, or one near to it.
    fn port(&self, at: u16) -> u16 {
        match self.ports.get(usize::from(at) % (self.ports.len() + 16)) {
            Some(port) => *port,
            None => at,
        }
    }

    /// A place in what a device has claimed, and sometimes behind its end.
    fn place(&self, device: u8, offset: u32) -> GuestPhysAddr {
        let (first, last) = self.regions[usize::from(device) % self.regions.len()];
        let bytes = last.as_u64() - first.as_u64() + 1;
        GuestPhysAddr::new(first.as_u64() + u64::from(offset) % (bytes + 8))
    }

    /// Lets time pass from one deadline to the next, as a guest that runs sees it, or at once if
    /// it is much.
    fn pass(&mut self, nanoseconds: u64) {
        let clock = self.builder.clock();
        let end = clock.now().after(nanoseconds);
        if nanoseconds > LONG {
            self.host.advance(nanoseconds);
            return;
        }
        let mut fired = self.serve_timers();
        while let Some(at) = self.builder.timers().earliest().filter(|at| *at <= end) {
            self.host.advance(at.since(clock.now()));
            fired += self.serve_timers();
        }
        self.host.advance(end.since(clock.now()));
        let most = AT_ONCE + TIMERS * (nanoseconds / SHORTEST_PERIOD + 1);
        assert!(fired <= most, "timers fired {fired} times in {nanoseconds} ns");
    }

    /// Calls the timers that are due; returns how often that had to be done.
    fn serve_timers(&self) -> u64 {
        let now: VmInstant = self.builder.clock().now();
        let timers = self.builder.timers();
        let mut fired = 0;
        while timers.earliest().is_some_and(|at| at <= now) {
            timers.expire(now);
            fired += 1;
            assert!(fired <= AT_ONCE, "a timer is due again and again at {now:?}");
        }
        fired
    }

    fn save_and_restore(&self) {
        let PcPlatform {
            pic,
            io_apic,
            irq_router: _,
            pit,
            rtc,
            hpet,
            com1,
            pci: _,
            host_bridge,
            config_ports,
            pm,
            reset_control,
            port_a,
            keyboard,
            memory_map: _,
            rsdp: _,
        } = &self.platform;
        macro_rules! twice {
            ($($device:ident)+) => {$(
                // Devices look at the time only when they have to, and restoring is such a case.
                $device.restore($device.save());
                let saved = $device.save();
                $device.restore(saved.clone());
                assert_eq!($device.save(), saved, "state is lost");
            )+};
        }
        twice! { pic io_apic pit rtc hpet com1 config_ports pm reset_control port_a keyboard }
        let saved = host_bridge.save();
        host_bridge.restore(&saved);
        assert_eq!(host_bridge.save(), saved, "state is lost");
    }
}

/// Ports have no accesses of 64 bits.
fn port_width(width: Width) -> AccessWidth {
    AccessWidth::from(width).min(AccessWidth::Dword)
}

impl Drop for Pc {
    fn drop(&mut self) {
        self.host.take_kicks();
    }
}
