// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of a VM as an embedder lives it: probed, created, booted, run and destroyed.

use std::{sync::Arc, time::Duration};

use host_iface::{CpuId, Host, HostError, WallClockTime};
use host_mock::{MockHost, Rest};
use vmm_core::{
    EndReason, VmControl,
    backend::Backend,
    boot::{self, BootError, BootImages, RawMode, RawStart, Start},
    mock_backend::{MockBackend, MockVcpu},
    paging::shadow::ShadowConfig,
    svm::Svm,
    vcpu::Vcpu,
    vm::{BuildError, PagingChoice, Vm, VmBuilder, VmConfig},
    vmx::{SampleModel, Vmx},
};
use vmm_devices::{CharBackend, PcConfig, PcPlatform, PlatformError, TablesBy};

use crate::guest;

/// CPUs of the life: the embedder's own, and one for each vCPU.
pub const CPUS: std::ops::RangeInclusive<u32> = 0..=2;
const VCPU_CPUS: std::ops::RangeInclusive<u32> = 1..=2;

/// How long vCPUs may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// The smallest that holds what the guest wants.
const MEMORY: u64 = 2 << 20;

/// Whose virtualization the VM is built on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// The mock's, on which guests run.
    Mock,
    /// AMD's: VMs are created and destroyed.
    Svm,
    /// Intel's, likewise.
    Vmx(SampleModel),
}

/// What kind of life it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// What it is built on.
    pub machine: Machine,
    /// With shadow paging.
    pub shadow: bool,
    /// Number of vCPUs; on the mock, 1 or 2.
    pub vcpus: u32,
}

/// Why there was no life.
#[derive(Debug)]
pub enum Stillborn {
    /// The machine's virtualization could not be prepared.
    Probe(HostError),
    /// The VM could not be built.
    Build(BuildError),
    /// Its platform could not be put together.
    Platform(PlatformError),
    /// Its image could not be loaded.
    Boot(BootError),
}

/// What came of a life.
#[derive(Debug)]
pub enum Outcome {
    /// It did not begin.
    Stillborn(Stillborn),
    /// A VM that cannot run here was built and destroyed.
    Built,
    /// The VM ran to this end, and wrote this.
    Ended(EndReason, Vec<u8>),
    /// It waited for what did not come, until the operator stopped it.
    Stopped,
}

/// Lives a life of `kind` on `host`.
pub fn live(host: &'static MockHost, kind: Kind) -> Outcome {
    let result = match kind.machine {
        Machine::Mock => run(host, kind),
        Machine::Svm => build_only(host, kind, Svm::sample),
        Machine::Vmx(model) => build_only(host, kind, |host| Vmx::sample(host, model)),
    };
    result.unwrap_or_else(Outcome::Stillborn)
}

fn build_only<B: Backend>(
    host: &'static MockHost,
    kind: Kind,
    probe: impl FnOnce(&'static dyn Host) -> Result<B, HostError>,
) -> Result<Outcome, Stillborn> {
    host.begin_phase("probe");
    let backend = probe(host).map_err(Stillborn::Probe)?;
    let vm = create(host, kind, &backend)?;
    host.begin_phase("destroy");
    drop(vm);
    Ok(Outcome::Built)
}

/// The platform's end of the console.
struct Console(&'static dyn host_iface::HostConsole);

impl CharBackend for Console {
    fn write(&self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        self.0.read(buffer)
    }
}

/// A VM with its platform, its image loaded, and a listener for its console.
fn create<B: Backend>(
    host: &'static MockHost,
    kind: Kind,
    backend: &B,
) -> Result<Vm<B::Vcpu>, Stillborn> {
    host.begin_phase("create");
    let config = VmConfig { memory_bytes: MEMORY, vcpus: kind.vcpus };
    let mut builder = VmBuilder::new(host, config).map_err(Stillborn::Build)?;
    let choice = if kind.shadow { PagingChoice::Shadow } else { PagingChoice::Nested };
    builder.set_paging(choice, ShadowConfig::default());
    let console = host.console(0).map(|stream| Arc::new(Console(stream)) as Arc<dyn CharBackend>);
    let nineteen_seventy = WallClockTime { unix_seconds: 0, nanoseconds: 0 };
    let pc = PcConfig {
        console,
        exit_port: Some(guest::EXIT_PORT),
        time: host.wall_clock().map_or(nineteen_seventy, |clock| clock.now()),
        address_bits: builder.physical_address_bits::<B>(),
        tables: TablesBy::Platform,
    };
    let platform = PcPlatform::new(&mut builder, &pc).map_err(Stillborn::Platform)?;
    host.begin_phase("boot");
    let start = RawStart { load_address: 0x18_0000, entry_offset: 0, mode: RawMode::Protected };
    let images = BootImages {
        kernel: b"an image of some bytes",
        start: Start::Raw(start),
        modules: &[],
        command_line: "",
        memory_map: &platform.memory_map,
        rsdp: platform.rsdp,
    };
    let state = boot::load(builder.memory(), &images).map_err(Stillborn::Boot)?;
    let state = guest::with_paging(builder.memory(), state);
    host.begin_phase("create");
    let mut vm = builder.build(backend).map_err(Stillborn::Build)?;
    host.begin_phase("boot");
    if let Some(bootstrap) = vm.vcpus().first_mut() {
        bootstrap.set_initial_state(&state);
        bootstrap.apply_firmware_defaults();
    }
    Ok(vm)
}

fn run(host: &'static MockHost, kind: Kind) -> Result<Outcome, Stillborn> {
    let backend = Arc::new(MockBackend { host });
    let mut vm = create(host, kind, &*backend)?;
    host.begin_phase("run");
    host.mock_console().take_output();
    let control = vm.control().clone();
    let kept = Arc::default();
    // The first comes last: it looks for the others.
    let placed: Vec<_> = vm.take_vcpus().into_iter().zip(VCPU_CPUS).collect();
    for (mut vcpu, cpu) in placed.into_iter().rev() {
        vcpu.hardware().guest = guest::guest(host, vcpu.index(), kind.vcpus, kind.shadow);
        start(host, &backend, vcpu, CpuId(cpu), &control, &kept);
    }
    let stopped = operate(host, &control);
    host.begin_phase("destroy");
    // The vCPUs go last: those that are out keep the memory.
    drop(vm);
    drop(kept);
    let end = control.ended().cloned();
    Ok(match end.filter(|_| !stopped) {
        Some(end) => Outcome::Ended(end, host.mock_console().take_output()),
        None => Outcome::Stopped,
    })
}

/// Where vCPUs go that are back.
type Kept = Arc<std::sync::Mutex<Vec<Box<Vcpu<MockVcpu>>>>>;

/// Sends a vCPU to its CPU; the VM ends if that is not to be had.
fn start(
    host: &'static MockHost,
    backend: &Arc<MockBackend>,
    mut vcpu: Box<Vcpu<MockVcpu>>,
    cpu: CpuId,
    control: &VmControl,
    kept: &Kept,
) {
    let (backend, kept) = (backend.clone(), kept.clone());
    let task = Box::new(move || {
        backend.enter_cpu().expect("the mock's CPUs can run guests");
        vcpu.run();
        backend.leave_cpu();
        assert!(!vcpu.hardware().loaded, "nothing of the guest stays on the CPU");
        kept.lock().expect("no vCPU panics").push(vcpu);
    });
    if host.run_on(cpu, task).is_err() {
        control.end(EndReason::Stopped("a CPU of the host was not free"));
    }
}

/// Waits for the VM to end, and stops one that waits for what will not come. True if it had to.
fn operate(host: &'static MockHost, control: &VmControl) -> bool {
    let mut stopped = false;
    // Its own call may be the one that fails; where all fail, the third finds the host mended.
    for attempt in 0..4 {
        match host.rest(VCPU_CPUS, PATIENCE) {
            Rest::Ended => return stopped,
            Rest::Busy => panic!("the vCPUs come to no rest"),
            Rest::Asleep => {}
        }
        stopped |= control.ended().is_none();
        if attempt == 2 {
            host.mend();
        }
        control.end(EndReason::Stopped("the operator"));
    }
    panic!("a VM whose vCPUs wait cannot be stopped");
}
