// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PC: all of its devices, connected to each other and to a VM.

use alloc::{sync::Arc, vec::Vec};
use core::{array, fmt, ops::RangeInclusive};

use host_iface::WallClockTime;
use vmm_core::{
    GuestPhysAddr, PortDevice,
    boot::MemoryRange,
    memory::{MemoryError, MemoryLayout},
    vm::{BuildError, VmBuilder, VmConfig},
};

use crate::{
    CharBackend, ExitPort, Hpet, IoApic, IrqRouter, LegacyReplacement, Pic, Pit, PortRange, Rtc,
    Uart,
    acpi::{self, AcpiError, PlatformConfig},
    memory_map,
    pci::{
        CONFIG_PORTS, CONFIG_PORTS_BASE, ConfigPorts, ECAM_BASE, ECAM_BYTES, Ecam, FunctionAddress,
        HostBridge, PciBus, PciError,
    },
    pm::{PM_BASE, PM_PORTS, PmBlock},
    reset::{
        KeyboardCommand, KeyboardControllerReset, KeyboardData, ResetControl, SystemControlPortA,
    },
};

/// ISA interrupts of the devices.
const TIMER_IRQ: u32 = 0;
const COM1_IRQ: u32 = 4;
const RTC_IRQ: u32 = 8;

/// What can be chosen of a PC.
#[derive(Clone)]
pub struct PcConfig {
    /// What the first serial port is connected to.
    pub console: Option<Arc<dyn CharBackend>>,
    /// First port of an [`ExitPort`], if there is to be one.
    pub exit_port: Option<u16>,
    /// What the battery-backed clock shows at the start.
    pub time: WallClockTime,
    /// Width of guest-physical addresses in bits; bounds the 64-bit PCI window.
    pub address_bits: u8,
    /// Who makes the ACPI tables.
    pub tables: TablesBy,
}

/// Who makes the tables that describe the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TablesBy {
    /// The platform writes them to the guest's memory where firmware would have.
    Platform,
    /// Firmware in the guest; there are none when it starts.
    Firmware,
}

/// Why the platform could not be put together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlatformError {
    /// The VM did not take a device.
    Build(BuildError),
    /// The PCI bus did not take a function.
    Pci(PciError),
    /// The ACPI tables could not be built.
    Acpi(AcpiError),
    /// The ACPI tables could not be written to guest memory.
    Memory(MemoryError),
    /// From this port on there are too few for an [`ExitPort`].
    ExitPort(u16),
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(error) => error.fmt(f),
            Self::Pci(error) => error.fmt(f),
            Self::Acpi(error) => error.fmt(f),
            Self::Memory(error) => write!(f, "no place for the ACPI tables: {error}"),
            Self::ExitPort(port) => write!(
                f,
                "the exit port has {} ports, too many to start at {port:#x}; choose {:#x} or below",
                ExitPort::PORTS,
                u16::MAX - (ExitPort::PORTS - 1)
            ),
        }
    }
}

impl core::error::Error for PlatformError {}

impl From<BuildError> for PlatformError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<PciError> for PlatformError {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

impl From<AcpiError> for PlatformError {
    fn from(error: AcpiError) -> Self {
        Self::Acpi(error)
    }
}

impl From<MemoryError> for PlatformError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

/// A PC's devices, for what comes after they are built: attaching PCI functions, and saving
/// and restoring their state. The VM keeps them alive by itself.
pub struct PcPlatform {
    /// The 8259A pair.
    pub pic: Arc<Pic>,
    /// The I/O APIC.
    pub io_apic: Arc<IoApic>,
    /// The wires from devices to both interrupt controllers.
    pub irq_router: Arc<IrqRouter>,
    /// The interval timer.
    pub pit: Arc<Pit>,
    /// The battery-backed clock.
    pub rtc: Arc<Rtc>,
    /// The high precision event timers.
    pub hpet: Arc<Hpet>,
    /// The first serial port.
    pub com1: Arc<Uart>,
    /// The PCI bus.
    pub pci: Arc<PciBus>,
    /// The function at 00:00.0.
    pub host_bridge: Arc<HostBridge>,
    /// PCI configuration access through ports.
    pub config_ports: Arc<ConfigPorts>,
    /// ACPI event and control registers and timer.
    pub pm: Arc<PmBlock>,
    /// The reset register at port 0xCF9.
    pub reset_control: Arc<ResetControl>,
    /// The register at port 0x92.
    pub port_a: Arc<SystemControlPortA>,
    /// What there is of a keyboard controller.
    pub keyboard: Arc<KeyboardControllerReset>,
    /// The memory map to hand to the guest.
    pub memory_map: Vec<MemoryRange>,
    /// Where the ACPI tables start, unless firmware is to make them.
    pub rsdp: Option<GuestPhysAddr>,
}

impl PcPlatform {
    /// Makes the devices, connects them to the VM, and writes the ACPI tables to its memory
    /// unless firmware is to make them.
    ///
    /// # Errors
    /// [`PlatformError`]; an exit port on the ports of another device is one.
    pub fn new(builder: &mut VmBuilder, config: &PcConfig) -> Result<Self, PlatformError> {
        let layout = MemoryLayout::of(builder.config().memory_bytes);
        let vcpus = builder.config().vcpus;
        let (clock, control) = (builder.clock(), builder.control());
        let exit_ports = config.exit_port.map(exit_ports).transpose()?;

        let pic = Pic::new(builder.doorbell());
        let io_apic = IoApic::new(acpi::io_apic_id(vcpus), builder.apic_bus());
        let irq_router = IrqRouter::new(pic.clone(), io_apic.clone());

        let replacement =
            LegacyReplacement::new(irq_router.line(TIMER_IRQ), irq_router.line(RTC_IRQ));
        let pit = Pit::new(clock, builder.timer()?, replacement.pit_line());
        let rtc_irq = replacement.rtc_line();
        let rtc = Rtc::new(clock, builder.timer()?, rtc_irq, config.time, layout);
        let inputs = array::from_fn(|index| irq_router.line(Hpet::FIRST_INPUT + index as u32));
        let hpet = Hpet::new(clock, builder.timer()?, replacement, inputs);
        let pm = PmBlock::new(clock, control.clone(), irq_router.sci(), builder.timer()?);
        let console = config.console.clone();
        let com1 = Uart::new(Uart::COM_PORTS[0], irq_router.line(COM1_IRQ), console);

        let reset_control = Arc::new(ResetControl::new(control.clone()));
        let pci = Arc::new(PciBus::new());
        let host_bridge = Arc::new(HostBridge::new());
        pci.attach(FunctionAddress::HOST_BRIDGE, host_bridge.clone())?;
        let config_ports = Arc::new(ConfigPorts::new(pci.clone(), reset_control.clone()));

        let rsdp = match config.tables {
            TablesBy::Platform => Some(write_tables(builder, config)?),
            TablesBy::Firmware => None,
        };

        let platform = Self {
            pic,
            io_apic,
            irq_router,
            pit,
            rtc,
            hpet,
            com1,
            pci,
            host_bridge,
            config_ports,
            pm,
            reset_control,
            port_a: Arc::new(SystemControlPortA::new(control.clone())),
            keyboard: Arc::new(KeyboardControllerReset::new(control)),
            memory_map: memory_map(layout),
            rsdp,
        };
        platform.claim(builder)?;
        if let Some(ports) = exit_ports {
            builder.claim_ports(ports, Arc::new(ExitPort::new(builder.control())))?;
        }
        Ok(platform)
    }

    /// Gives the devices their ports and addresses, and the interrupt controllers their ends
    /// at the vCPUs.
    fn claim(&self, builder: &mut VmBuilder) -> Result<(), BuildError> {
        let legacy = self.pic.ports().into_iter().chain(self.pit.ports());
        let legacy = legacy.chain([self.rtc.ports(), self.com1.ports()]);
        for PortRange { ports, device } in legacy {
            builder.claim_ports(ports, device)?;
        }
        for (ports, device) in self.chipset_ports() {
            builder.claim_ports(ports, device)?;
        }
        builder.claim_mmio(IoApic::BASE, IoApic::BYTES, self.io_apic.clone())?;
        builder.claim_mmio(Hpet::BASE, Hpet::BYTES, self.hpet.clone())?;
        builder.claim_mmio(ECAM_BASE, ECAM_BYTES, Arc::new(Ecam::new(self.pci.clone())))?;
        builder.on_eoi(self.io_apic.clone());
        builder.external_interrupts(self.pic.clone());
        builder.on_host_event(self.com1.clone());
        Ok(())
    }

    fn chipset_ports(&self) -> [(RangeInclusive<u16>, Arc<dyn PortDevice>); 5] {
        const DATA: u16 = KeyboardControllerReset::DATA_PORT;
        const COMMAND: u16 = KeyboardControllerReset::COMMAND_PORT;
        const PORT_A: u16 = SystemControlPortA::PORT;
        [
            (CONFIG_PORTS_BASE..=CONFIG_PORTS_BASE + CONFIG_PORTS - 1, self.config_ports.clone()),
            (PM_BASE..=PM_BASE + PM_PORTS - 1, self.pm.clone()),
            (PORT_A..=PORT_A, self.port_a.clone()),
            (DATA..=DATA, Arc::new(KeyboardData(self.keyboard.clone()))),
            (COMMAND..=COMMAND, Arc::new(KeyboardCommand(self.keyboard.clone()))),
        ]
    }
}

/// Writes the ACPI tables to the guest's memory; returns where they start.
fn write_tables(builder: &VmBuilder, config: &PcConfig) -> Result<GuestPhysAddr, PlatformError> {
    let VmConfig { memory_bytes, vcpus, .. } = builder.config();
    let tables = acpi::build(&PlatformConfig {
        vcpus,
        memory: MemoryLayout::of(memory_bytes),
        address_bits: config.address_bits,
        exit_port: config.exit_port,
    })?;
    tables.write_to(builder.memory())?;
    Ok(tables.rsdp)
}

fn exit_ports(first: u16) -> Result<RangeInclusive<u16>, PlatformError> {
    let last = first.checked_add(ExitPort::PORTS - 1).ok_or(PlatformError::ExitPort(first))?;
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;

    const MEMORY: u64 = 4 << 20;

    fn config(exit_port: Option<u16>) -> PcConfig {
        let time = WallClockTime { unix_seconds: 1_700_000_000, nanoseconds: 0 };
        PcConfig { console: None, exit_port, time, address_bits: 40, tables: TablesBy::Platform }
    }

    fn build(
        host: &'static MockHost,
        exit_port: Option<u16>,
    ) -> (VmBuilder, Result<PcPlatform, PlatformError>) {
        let vm = VmConfig { memory_bytes: MEMORY, vcpus: 2 };
        let mut builder = VmBuilder::new(host, vm).unwrap();
        let platform = PcPlatform::new(&mut builder, &config(exit_port));
        (builder, platform)
    }

    #[test]
    fn tables_are_in_memory_that_the_map_reserves() {
        let (builder, platform) = build(MockHost::leak(2), Some(0xF4));
        let platform = platform.unwrap();
        let rsdp = platform.rsdp.unwrap();
        let signature: [u8; 8] = builder.memory().read_plain(rsdp).unwrap();
        assert_eq!(&signature, b"RSD PTR ");
        let rsdp = rsdp.as_u64();
        let range = platform.memory_map.iter().find(|range| {
            (range.start.as_u64()..range.start.as_u64() + range.bytes).contains(&rsdp)
        });
        assert_eq!(range.unwrap().kind, vmm_core::boot::MemoryKind::Reserved);
    }

    #[test]
    fn tables_are_left_to_firmware() {
        let vm = VmConfig { memory_bytes: MEMORY, vcpus: 1 };
        let mut builder = VmBuilder::new(MockHost::leak(1), vm).unwrap();
        let config = PcConfig { tables: TablesBy::Firmware, ..config(None) };
        let platform = PcPlatform::new(&mut builder, &config).unwrap();
        assert_eq!(platform.rsdp, None);
        let mut area = vec![1; 0x2_0000];
        builder.memory().read(GuestPhysAddr::new(0xE_0000), &mut area).unwrap();
        assert!(area.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn an_exit_port_on_the_ports_of_a_device_is_refused() {
        for port in [0x20, 0x60, 0x3F6, 0x600, 0xCF5] {
            let (_, platform) = build(MockHost::leak(2), Some(port));
            let Err(PlatformError::Build(BuildError::Claim(error))) = platform else {
                panic!("an exit port at {port:#x} is possible");
            };
            assert!(error.to_string().contains("exit port"), "{error}");
        }
    }

    #[test]
    fn an_exit_port_at_the_end_of_port_space_is_refused() {
        let (_, platform) = build(MockHost::leak(2), Some(0xFFFD));
        assert_eq!(platform.err(), Some(PlatformError::ExitPort(0xFFFD)));
        assert!(build(MockHost::leak(2), Some(0xFFFC)).1.is_ok());
    }

    #[test]
    fn nothing_stays_behind() {
        let host = MockHost::leak(2);
        let (builder, platform) = build(host, Some(0xF4));
        let platform = platform.unwrap();
        let pm = Arc::downgrade(&platform.pm);
        let pit = Arc::downgrade(&platform.pit);
        let router = Arc::downgrade(&platform.irq_router);
        let bus = Arc::downgrade(&platform.pci);
        drop((platform, builder));
        assert!(pm.upgrade().is_none() && pit.upgrade().is_none());
        assert!(router.upgrade().is_none() && bus.upgrade().is_none());
        assert_eq!(host.live_runs(), 0);
    }
}
