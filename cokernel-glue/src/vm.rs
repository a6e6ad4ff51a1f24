// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a description in the manifest to a VM that is ready to run.

use alloc::{string::String, string::ToString, sync::Arc, vec::Vec};

use cokernel::memory;
use host_iface::{Host, HostWallClock, Tsc};
use vmm_core::{
    Doorbell, EndReason, NANOSECONDS, TimerClient, VmControl, VmInstant,
    backend::{Backend, VcpuBackend},
    boot::{self, BootImages, InitialState, RawMode, RawStart},
    paging::shadow::ShadowConfig,
    vcpu::Vcpu,
    vm::{PagingChoice, Vm, VmBuilder, VmConfig},
};
use vmm_devices::{IoApic, PcConfig, PcPlatform, TablesBy};
use wire::{Apic, Bundle, Paging, ShadowSettings, Start, VmDescription};

use crate::{console::TimedConsole, host::COKERNEL};

const MIB: u64 = 1 << 20;

/// A VM and what surrounds it.
pub struct GuestVm<B: Backend> {
    /// Its number in the stage.
    pub number: usize,
    /// Calls that it makes of the host are made to fail.
    #[cfg(feature = "fault-injection")]
    pub has_host_fault: bool,
    /// The VM.
    pub vm: Vm<B::Vcpu>,
    /// Where its first serial port leads.
    pub console: Arc<TimedConsole>,
    /// Makes its first vCPU look for input.
    pub doorbell: Doorbell,
    /// Its I/O APIC.
    pub io_apic: Arc<IoApic>,
    /// TSC when its creation began.
    pub begun: u64,
    /// TSC when it was complete.
    pub created: u64,
    /// Heap that it took, in bytes.
    pub heap_bytes: u64,
    /// Size of its control blocks, in bytes.
    pub control_bytes: u64,
    /// When its time is over, if it is limited.
    pub time_limit: Option<Tsc>,
}

/// Ends a VM when its time is over.
struct TimeLimit(VmControl);

impl TimerClient for TimeLimit {
    fn timer_expired(&self, _: VmInstant) {
        self.0.end(EndReason::Stopped("its time limit has passed"));
    }
}

impl<B: Backend> GuestVm<B> {
    /// Builds the VM that `description` asks for, the stage's with this number, and loads its
    /// images.
    ///
    /// # Errors
    /// A message for people.
    pub fn create(
        backend: &B,
        bundle: &Bundle<'_>,
        number: usize,
        description: &VmDescription,
    ) -> Result<Self, String> {
        let begun = COKERNEL.tsc().0;
        let heap_before = memory::heap_bytes();
        let mut builder = builder(description)?;
        let console = TimedConsole::new(description);
        let firmware = description.start == Start::Firmware;
        let pc = PcConfig {
            console: Some(console.clone()),
            exit_port: description.exit_port,
            time: HostWallClock::now(&COKERNEL),
            address_bits: builder.physical_address_bits::<B>(),
            tables: if firmware { TablesBy::Firmware } else { TablesBy::Platform },
        };
        let platform = PcPlatform::new(&mut builder, &pc).map_err(text)?;
        let time_limit = limit_time(&mut builder, description)?;
        let state = load_images(&mut builder, bundle, description, &platform)?;
        let doorbell = builder.doorbell();
        let mut vm = builder.build(backend).map_err(text)?;
        if let Some((bootstrap, state)) = vm.vcpus().first_mut().zip(state) {
            bootstrap.set_initial_state(&state);
            bootstrap.apply_firmware_defaults();
            spoil_entry(bootstrap, description)?;
        }
        let control_bytes = vm.control_bytes();
        let io_apic = platform.io_apic.clone();
        drop(platform);
        Ok(Self {
            number,
            #[cfg(feature = "fault-injection")]
            has_host_fault: description.host_fault.is_some(),
            vm,
            console,
            doorbell,
            io_apic,
            begun,
            created: COKERNEL.tsc().0,
            heap_bytes: memory::heap_bytes().saturating_sub(heap_before),
            control_bytes,
            time_limit,
        })
    }

    /// How guest-physical addresses are translated.
    pub fn paging(&self) -> Paging {
        match self.vm.shadow_statistics() {
            Some(_) => Paging::Shadow,
            None => Paging::Nested,
        }
    }
}

fn choice(description: &VmDescription) -> PagingChoice {
    match description.paging {
        None => PagingChoice::Automatic,
        Some(Paging::Nested) => PagingChoice::Nested,
        Some(Paging::Shadow) => PagingChoice::Shadow,
    }
}

fn shadow_config(description: &VmDescription) -> ShadowConfig {
    let ShadowSettings { budget_bytes, cache } = description.shadow;
    ShadowConfig { budget_bytes, cache }
}

/// An error as a message for people.
fn text(error: impl core::fmt::Display) -> String {
    error.to_string()
}

/// Begins the VM: memory, and what it has of hardware.
fn builder(description: &VmDescription) -> Result<VmBuilder, String> {
    let config = VmConfig {
        memory_bytes: description.memory_mib.saturating_mul(MIB),
        vcpus: description.vcpus,
    };
    let mut builder = VmBuilder::new(&COKERNEL, config).map_err(text)?;
    if description.apic == Apic::Emulated {
        builder.emulate_apic();
    }
    builder.set_paging(choice(description), shadow_config(description));
    Ok(builder)
}

/// Brings the guest's images into its memory. Gives the state that the bootstrap processor starts
/// in, but for firmware, which finds that after reset.
fn load_images(
    builder: &mut VmBuilder,
    bundle: &Bundle<'_>,
    description: &VmDescription,
    platform: &PcPlatform,
) -> Result<Option<InitialState>, String> {
    let kernel = bundle.image(&description.kernel).unwrap_or_default();
    if description.start == Start::Firmware {
        builder.map_firmware(kernel).map_err(text)?;
        return Ok(None);
    }
    let images = BootImages {
        kernel,
        start: start(description.start),
        modules: &modules(bundle, description),
        command_line: &description.command_line,
        memory_map: &platform.memory_map,
        rsdp: platform.rsdp,
    };
    boot::load(builder.memory(), &images).map(Some).map_err(text)
}

fn modules<'a>(bundle: &Bundle<'a>, description: &'a VmDescription) -> Vec<boot::Module<'a>> {
    let module = |module: &'a wire::Module| {
        let content = bundle.image(&module.image)?;
        Some(boot::Module { content, command_line: &module.command_line })
    };
    description.modules.iter().filter_map(module).collect()
}

/// How the library is to start a kernel that is no firmware.
fn start(start: Start) -> boot::Start {
    match start {
        Start::Raw { load_address, entry_offset, mode } => {
            let mode = match mode {
                wire::RawMode::Real => RawMode::Real,
                wire::RawMode::Protected => RawMode::Protected,
            };
            boot::Start::Raw(RawStart { load_address, entry_offset, mode })
        }
        Start::Detect | Start::Firmware => boot::Start::Detect,
    }
}

/// Has an entry fail, if the manifest says so and this image is made for it.
#[cfg(feature = "fault-injection")]
fn spoil_entry<V: VcpuBackend>(
    vcpu: &mut Vcpu<V>,
    description: &VmDescription,
) -> Result<(), String> {
    if let Some(fault) = &description.entry_fault {
        let what = fault.what.clone();
        vcpu.set_entry_fault(vmm_core::vcpu::EntryFault { what, at_entry: fault.at_entry });
    }
    Ok(())
}

/// Refuses to have an entry fail: this image is made for work.
#[cfg(not(feature = "fault-injection"))]
fn spoil_entry<V: VcpuBackend>(_: &mut Vcpu<V>, description: &VmDescription) -> Result<(), String> {
    match (&description.entry_fault, &description.host_fault) {
        (None, None) => Ok(()),
        _ => Err("a fault needs an image with the feature 'fault-injection'".into()),
    }
}

/// Ends the VM when its time is over. Gives that moment, if its time is limited.
fn limit_time(builder: &mut VmBuilder, description: &VmDescription) -> Result<Option<Tsc>, String> {
    let Some(milliseconds) = description.time_limit_ms else { return Ok(None) };
    let nanoseconds = milliseconds.saturating_mul(NANOSECONDS / 1000);
    let at = builder.clock().now().after(nanoseconds);
    let limit = Arc::new(TimeLimit(builder.control()));
    builder.own_timer(limit, at).map_err(|error| error.to_string())?;
    Ok(Some(builder.clock().tsc_at(at)))
}
