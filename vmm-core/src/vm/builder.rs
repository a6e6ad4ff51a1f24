// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting a VM together.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{num::NonZeroU32, ops::RangeInclusive};

use host_iface::Host;

use super::{
    BuildError, Vm, VmPart,
    apic_window::ApicWindowTables,
    core::{MemoryTables, SecondLevel, VmCore},
    halt::HaltDetector,
};
use crate::{
    ApicBus, Doorbell, EoiObserver, ExternalInterruptSource, GuestPhysAddr, HostEventClient,
    MmioDevice, PAGE_SIZE, PortDevice, Timer, TimerBank, TimerClient, VcpuLink, VmClock, VmControl,
    VmInstant,
    apic::{
        ApicInbox, BusMember, DEFAULT_APIC_BASE, LocalApic, LocalApicBus, LocalApicConfig,
        X2APIC_MSRS,
    },
    backend::{ApicSetup, ApicWindow, Backend, Translation, VcpuSetup},
    boot::{self, BootError},
    bus::{ClaimError, MmioBus, PortBus},
    cpuid::{CpuidModel, CpuidTable, Vendor, host_cpuid},
    hooks::Hooks,
    memory::{self, GuestMemory, MIN_MEMORY, MemoryLayout, heap},
    paging::{
        NestedTables,
        shadow::{ShadowConfig, ShadowMmu, least_tables},
    },
    vcpu::{Vcpu, VcpuParts},
};

/// Most vCPUs of one VM: their xAPIC IDs have to stay below the broadcast ID.
pub const MAX_VCPUS: u32 = 64;

/// What a VM is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmConfig {
    /// Memory in bytes, whole pages, at least [`MIN_MEMORY`].
    pub memory_bytes: u64,
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
}

/// How guest-physical addresses are to be translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PagingChoice {
    /// By the CPU if it can, else by shadow paging.
    #[default]
    Automatic,
    /// By the CPU: nested page tables (AMD) or extended page tables (Intel).
    Nested,
    /// By shadow page tables that the VMM keeps.
    Shadow,
}

/// A VM in the making: memory is there, devices are added, vCPUs come last.
pub struct VmBuilder {
    host: &'static dyn Host,
    config: VmConfig,
    memory: GuestMemory,
    ports: PortBus,
    mmio: MmioBus,
    hooks: Hooks,
    clock: VmClock,
    timers: Arc<TimerBank>,
    timers_used: usize,
    control: VmControl,
    links: Vec<Arc<VcpuLink>>,
    apic_bus: Arc<LocalApicBus>,
    eoi_observers: Vec<Arc<dyn EoiObserver>>,
    external: Option<Arc<dyn ExternalInterruptSource>>,
    host_event_clients: Vec<Arc<dyn HostEventClient>>,
    timer_clients: Vec<Arc<dyn TimerClient>>,
    emulate_apic: bool,
    paging: PagingChoice,
    shadow: ShadowConfig,
}

impl VmBuilder {
    /// Checks `config` and allocates the VM's memory.
    ///
    /// # Errors
    /// What is out of range, or what the host lacks.
    pub fn new(host: &'static dyn Host, config: VmConfig) -> Result<Self, BuildError> {
        if !(1..=MAX_VCPUS).contains(&config.vcpus) {
            return Err(BuildError::VcpuCount(config.vcpus));
        }
        // Beyond what any CPU can address, sizes would overflow on the way.
        const MAX_MEMORY: u64 = 1 << 46;
        let bytes = config.memory_bytes;
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&bytes) || !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(BuildError::MemorySize(bytes));
        }
        let memory =
            memory::allocate(host, MemoryLayout::of(bytes)).map_err(VmPart::Memory.lacks())?;
        let links: Vec<Arc<VcpuLink>> = (0..config.vcpus).map(|_| Arc::default()).collect();
        let doorbells: Vec<Doorbell> =
            links.iter().map(|link| Doorbell::new(host, link.clone())).collect();
        let control = VmControl::new();
        control.connect(doorbells.clone());
        let member = |doorbell| BusMember { inbox: Arc::new(ApicInbox::new()), doorbell };
        Ok(Self {
            host,
            config,
            memory,
            ports: PortBus::new().map_err(VmPart::Ports.lacks())?,
            mmio: MmioBus::default(),
            hooks: Hooks::default(),
            clock: VmClock::start(host),
            timers: TimerBank::new(doorbells[0].clone()),
            timers_used: 0,
            control,
            links,
            apic_bus: LocalApicBus::new(doorbells.into_iter().map(member).collect()),
            eoi_observers: Vec::new(),
            external: None,
            host_event_clients: Vec::new(),
            timer_clients: Vec::new(),
            emulate_apic: false,
            paging: PagingChoice::default(),
            shadow: ShadowConfig::default(),
        })
    }

    /// What was asked for.
    pub fn config(&self) -> VmConfig {
        self.config
    }

    /// Chooses how guest-physical addresses are translated, and how shadow paging is set up
    /// where it is used.
    pub fn set_paging(&mut self, choice: PagingChoice, shadow: ShadowConfig) {
        (self.paging, self.shadow) = (choice, shadow);
    }

    /// The VM's clock, which started when the builder was made.
    pub fn clock(&self) -> VmClock {
        self.clock
    }

    /// The handle that ends the VM.
    pub fn control(&self) -> VmControl {
        self.control.clone()
    }

    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Maps a firmware image below 4 GiB and below 1 MiB; see [`boot::map_firmware`]. The first
    /// vCPU, which starts in the state after reset, executes it if it is given no other state.
    ///
    /// # Errors
    /// [`BootError::FirmwareSize`], or what the host lacks.
    pub fn map_firmware(&mut self, image: &[u8]) -> Result<(), BootError> {
        boot::map_firmware(self.host, &mut self.memory, image)
    }

    /// The bus to the local APICs.
    pub fn apic_bus(&self) -> Arc<dyn ApicBus> {
        self.apic_bus.clone()
    }

    /// The doorbell of the first vCPU, to which external interrupts go. It also listens for a
    /// console's input, see [`HostConsole::notify`](host_iface::HostConsole::notify).
    pub fn doorbell(&self) -> Doorbell {
        Doorbell::new(self.host, self.links[0].clone())
    }

    /// Another timer for a device.
    ///
    /// # Errors
    /// [`BuildError::TooManyTimers`].
    pub fn timer(&mut self) -> Result<Timer, BuildError> {
        let timer = Timer::new(&self.timers, self.timers_used).ok_or(BuildError::TooManyTimers)?;
        self.timers_used += 1;
        Ok(timer)
    }

    /// Has `client`, which the VM then owns, called once at the moment `at`. It serves the host
    /// and must not interrupt the guest.
    ///
    /// # Errors
    /// [`BuildError::TooManyTimers`].
    pub fn own_timer(
        &mut self,
        client: Arc<dyn TimerClient>,
        at: VmInstant,
    ) -> Result<(), BuildError> {
        let timer = self.timer()?;
        timer.connect(client.clone());
        timer.mark_as_hosts();
        timer.arm(at);
        self.timer_clients.push(client);
        Ok(())
    }

    /// Bits of a guest-physical address on the CPU model that a backend's guests see.
    pub fn physical_address_bits<B: Backend>(&self) -> u8 {
        self.cpuid_table::<B>().physical_address_bits()
    }

    fn cpuid_table<B: Backend>(&self) -> CpuidTable {
        let vcpus = NonZeroU32::new(self.config.vcpus).unwrap_or(NonZeroU32::MIN);
        let tsc_khz = u32::try_from(self.clock.tsc_hz() / 1000).unwrap_or(u32::MAX);
        let model = match B::VENDOR {
            Vendor::Amd => CpuidModel::amd(vcpus, tsc_khz),
            Vendor::Intel => CpuidModel::intel(vcpus, tsc_khz),
        };
        CpuidTable::new(model, &host_cpuid)
    }

    /// Gives I/O ports to a device.
    ///
    /// # Errors
    /// [`BuildError::Claim`].
    pub fn claim_ports(
        &mut self,
        ports: RangeInclusive<u16>,
        device: Arc<dyn PortDevice>,
    ) -> Result<(), BuildError> {
        Ok(self.ports.claim(ports, device)?)
    }

    /// Gives a guest-physical range to a device.
    ///
    /// # Errors
    /// [`BuildError::Claim`], also if the range touches memory or the registers of the local APICs,
    /// which answer there before any device.
    pub fn claim_mmio(
        &mut self,
        start: GuestPhysAddr,
        bytes: u64,
        device: Arc<dyn MmioDevice>,
    ) -> Result<(), BuildError> {
        let end = start.as_u64().saturating_add(bytes);
        let in_the_way = self.memory.regions().iter().any(|region| {
            let memory = region.start().as_u64();
            memory < end && start.as_u64() < memory + region.bytes()
        });
        if in_the_way {
            let device = device.name().into();
            return Err(ClaimError::BadRange { start: start.as_u64(), device }.into());
        }
        let registers = DEFAULT_APIC_BASE.as_u64();
        if start.as_u64() < registers + PAGE_SIZE && registers < end {
            let (start, last) = (start.as_u64(), end.saturating_sub(1));
            let (device, owner) = (device.name().into(), "local APIC".into());
            return Err(ClaimError::Overlap { start, last, device, owner }.into());
        }
        Ok(self.mmio.claim(start, bytes, device)?)
    }

    /// The ports, and who has them.
    pub fn ports(&self) -> &PortBus {
        &self.ports
    }

    /// The memory-mapped devices.
    pub fn mmio(&self) -> &MmioBus {
        &self.mmio
    }

    /// The timers of the devices, which the first vCPU serves once there is one.
    pub fn timers(&self) -> &TimerBank {
        &self.timers
    }

    /// Takes the device at `port` off all of its ports there, which then read as nothing again.
    /// False if there is none.
    pub fn release_ports(&mut self, port: u16) -> bool {
        self.ports.release(port)
    }

    /// Takes away the device that answers at `address`. False if there is none.
    pub fn release_mmio(&mut self, address: GuestPhysAddr) -> bool {
        self.mmio.release(address)
    }

    /// The hooks on MSRs, CPUID and hypercalls.
    pub fn hooks(&mut self) -> &mut Hooks {
        &mut self.hooks
    }

    /// Has the VMM do all of the local APICs' work, also where the hardware could take over a
    /// part of it.
    pub fn emulate_apic(&mut self) {
        self.emulate_apic = true;
    }

    /// Hardware that answers for the local APIC would bypass hooks on its MSRs.
    fn emulates_apic(&self) -> bool {
        self.emulate_apic || self.hooks.has_msr_in(&X2APIC_MSRS)
    }

    /// Tells `observer` of the end of level-triggered interrupts.
    pub fn on_eoi(&mut self, observer: Arc<dyn EoiObserver>) {
        self.eoi_observers.push(observer);
    }

    /// Takes external interrupts from `source`.
    pub fn external_interrupts(&mut self, source: Arc<dyn ExternalInterruptSource>) {
        self.external = Some(source);
    }

    /// Tells `client` when the first vCPU was rung, or interrupted by the host.
    pub fn on_host_event(&mut self, client: Arc<dyn HostEventClient>) {
        self.host_event_clients.push(client);
    }

    /// Makes the VM. Its vCPUs are in the state after reset: the first runs, the others wait
    /// for a start-up.
    ///
    /// # Errors
    /// What the host lacks; everything goes back then.
    pub fn build<B: Backend>(self, backend: &B) -> Result<Vm<B::Vcpu>, BuildError> {
        let (host, config) = (self.host, self.config);
        let (tables, setup) = self.tables(backend)?;
        let cpuid = self.cpuid_table::<B>();
        let core = Arc::new(VmCore {
            host,
            memory: self.memory,
            tables,
            ports: self.ports,
            mmio: self.mmio,
            hooks: self.hooks,
            cpuid: Arc::new(cpuid),
            clock: self.clock,
            timers: self.timers,
            control: self.control,
            apic_bus: self.apic_bus,
            external: self.external,
            host_event_clients: self.host_event_clients,
            _timer_clients: self.timer_clients,
            links: self.links,
            halt: HaltDetector::default(),
        });
        let eoi_observers: Arc<[_]> = self.eoi_observers.into();
        let vcpu = |index: u32| -> Result<_, BuildError> {
            let inbox = core.apic_bus.inbox(index as usize).cloned().unwrap_or_default();
            let apic = LocalApic::new(LocalApicConfig {
                host,
                bus: core.apic_bus.clone(),
                inbox,
                id: index,
                bootstrap: index == 0,
                directed_eoi: true,
                eoi_observers: eoi_observers.clone(),
            });
            let hardware = backend.create_vcpu(setup).map_err(VmPart::Vcpu(index).lacks())?;
            let parts = VcpuParts { core: core.clone(), index, hardware, apic };
            Vcpu::new(parts).and_then(heap::boxed).map_err(VmPart::Vcpu(index).lacks())
        };
        let vcpus: Result<Vec<_>, _> = (0..config.vcpus).map(vcpu).collect();
        Ok(Vm { core: core.clone(), vcpus: vcpus? })
    }

    /// The tables that the CPUs walk on their way to guest memory, and what the CPUs are told of
    /// them.
    fn tables<B: Backend>(&self, backend: &B) -> Result<(MemoryTables, VcpuSetup), BuildError> {
        let nested = match self.paging {
            PagingChoice::Automatic => backend.has_nested_paging(),
            PagingChoice::Nested if !backend.has_nested_paging() => {
                return Err(BuildError::NoNestedPaging);
            }
            PagingChoice::Nested => true,
            PagingChoice::Shadow => false,
        };
        let (tables, translation, window) = match nested {
            true => self.nested_tables(backend)?,
            false => (MemoryTables::Shadow(self.shadow_tables::<B>()?), Translation::Shadow, None),
        };
        let setup = VcpuSetup {
            translation,
            tsc_offset: self.clock.origin().0.wrapping_neg(),
            apic: match self.emulates_apic() {
                true => ApicSetup::Emulated,
                false => ApicSetup::Hardware { window },
            },
            has_siblings: self.config.vcpus > 1,
        };
        Ok((tables, setup))
    }

    fn nested_tables<B: Backend>(
        &self,
        backend: &B,
    ) -> Result<(MemoryTables, Translation, Option<ApicWindow>), BuildError> {
        let huge = backend.has_huge_pages();
        let no_table = |error| VmPart::PageTables.lacks()(error);
        let mut memory =
            NestedTables::<B::Entries>::map_all(self.host, &self.memory, huge).map_err(no_table)?;
        if let Some(page) = backend.hardware_page() {
            self.mmio.check_free(page.guest, PAGE_SIZE, "the hardware's own page")?;
            memory.map_read_only(page.guest, page.host).map_err(no_table)?;
        }
        let apic_window = match self.emulates_apic() || !backend.wants_apic_window() {
            true => None,
            false => ApicWindowTables::new(self.host, &memory).map_err(no_table)?,
        };
        let translation = Translation::Nested(memory.root());
        let window = apic_window.as_ref().map(ApicWindowTables::window);
        let tables = MemoryTables::Nested {
            memory: Box::new(memory),
            apic_window: apic_window.map(|tables| Box::new(tables) as Box<dyn SecondLevel>),
        };
        Ok((tables, translation, window))
    }

    fn shadow_tables<B: Backend>(&self) -> Result<Box<ShadowMmu>, BuildError> {
        let least = least_tables(self.config.vcpus) * PAGE_SIZE;
        if let Some(bytes) = self.shadow.budget_bytes.filter(|bytes| *bytes < least) {
            return Err(BuildError::ShadowBudget { bytes, least });
        }
        let doorbells =
            self.links.iter().map(|link| Doorbell::new(self.host, link.clone())).collect();
        let features = self.cpuid_table::<B>().paging_features();
        let mmu = ShadowMmu::new(self.host, &self.memory, self.shadow, features, doorbells)
            .map_err(VmPart::PageTables.lacks())?;
        Ok(Box::new(mmu))
    }
}
