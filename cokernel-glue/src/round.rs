// SPDX-License-Identifier: MIT OR Apache-2.0
//! One round of a stage: VMs that run at once, each vCPU on a CPU of its own.

use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering};

use host_iface::{CpuId, Host};
use spin::Mutex;
use vmm_core::{EndReason, VmControl, backend::Backend, vcpu::Vcpu};

use crate::{faults, host::COKERNEL, vm::GuestVm};

/// The CPU that runs `main`, and vCPUs when there are no others.
const BOOT_CPU: CpuId = CpuId(0);

/// A vCPU that came back, and the CPU it was on.
pub struct Finished<B: Backend> {
    /// Index of the VM in the round.
    pub vm: usize,
    /// Where the vCPU ran.
    pub cpu: CpuId,
    /// The vCPU.
    pub vcpu: Box<Vcpu<B::Vcpu>>,
}

/// A vCPU with all that it needs to run.
struct Job<B: Backend> {
    /// Number of the VM in its stage.
    number: usize,
    finished: Finished<B>,
    backend: Arc<B>,
    control: VmControl,
    results: Arc<Results<B>>,
}

struct Results<B: Backend> {
    running: AtomicU32,
    finished: Mutex<Vec<Finished<B>>>,
}

/// VMs whose vCPUs have been sent to their CPUs.
pub struct Running<B: Backend> {
    used: Vec<CpuId>,
    results: Arc<Results<B>>,
}

/// The CPUs for `count` vCPUs beside those that are `taken`: others before the boot CPU, which
/// then only watches.
///
/// # Errors
/// A message that says how many CPUs are there.
fn assign_cpus(count: usize, taken: &[CpuId]) -> Result<Vec<CpuId>, String> {
    let cpus = COKERNEL.cpu_count();
    let wanted = count + taken.len();
    if wanted > cpus as usize {
        return Err(format!(
            "{wanted} vCPUs are to run at once, each on a CPU of its own, but the machine has \
             {cpus}; give it more, or run fewer"
        ));
    }
    let others = (1..cpus).map(CpuId).filter(|cpu| !taken.contains(cpu));
    let mut chosen: Vec<CpuId> = others.take(count).collect();
    if chosen.len() < count {
        // The first vCPU, which serves the console and the devices, gets the boot CPU.
        chosen.insert(0, BOOT_CPU);
    }
    Ok(chosen)
}

/// Runs all `vms` to their ends and returns their vCPUs.
///
/// # Errors
/// A message that says why none was run.
pub fn run<B: Backend>(
    backend: &Arc<B>,
    vms: &mut [GuestVm<B>],
) -> Result<Vec<Finished<B>>, String> {
    Ok(start(backend, vms, &[])?.wait(vms))
}

/// Starts all `vms` on CPUs that are not `taken`. A vCPU on the boot CPU, which comes last, has
/// run to its end on return.
///
/// # Errors
/// A message that says why none was run.
pub fn start<B: Backend>(
    backend: &Arc<B>,
    vms: &mut [GuestVm<B>],
    taken: &[CpuId],
) -> Result<Running<B>, String> {
    let count = vms.iter_mut().map(|guest| guest.vm.vcpus().len()).sum();
    let used = assign_cpus(count, taken)?;
    if used.contains(&BOOT_CPU) {
        // It can be less fit than the others, and is known before any guest has begun.
        backend.enter_cpu().map_err(|error| format!("{BOOT_CPU} cannot run guests: {error}"))?;
        backend.leave_cpu();
    }
    let mut cpus = used.iter().copied();
    let results = Arc::new(Results {
        running: AtomicU32::new(count as u32),
        finished: Mutex::new(Vec::with_capacity(count)),
    });
    let mut jobs = Vec::with_capacity(count);
    for (vm, guest) in vms.iter_mut().enumerate() {
        if let Some(stream) = guest.console.stream() {
            stream.notify(Some(Arc::new(guest.doorbell.clone())));
        }
        for vcpu in guest.vm.take_vcpus() {
            let cpu = cpus.next().unwrap_or(BOOT_CPU);
            jobs.push(Job {
                number: guest.number,
                finished: Finished { vm, cpu, vcpu },
                backend: backend.clone(),
                control: guest.vm.control().clone(),
                results: results.clone(),
            });
        }
    }
    send(jobs);
    Ok(Running { used, results })
}

impl<B: Backend> Running<B> {
    /// The CPUs that its vCPUs were given.
    pub fn cpus(&self) -> &[CpuId] {
        &self.used
    }

    /// Whether all vCPUs have come back.
    pub fn is_over(&self) -> bool {
        self.results.running.load(Ordering::Acquire) == 0
    }

    /// Waits for the ends of all `vms`, those that were started, and returns their vCPUs.
    pub fn wait(self, vms: &[GuestVm<B>]) -> Vec<Finished<B>> {
        let Self { used, results } = self;
        faults::wait(vms, &used, &|| results.running.load(Ordering::Acquire) > 0);
        // A task's own memory goes back only when its CPU is free again, in a moment.
        while used.iter().any(|cpu| *cpu != BOOT_CPU && !cokernel::smp::is_free(cpu.0)) {
            core::hint::spin_loop();
        }
        for guest in vms {
            if let Some(stream) = guest.console.stream() {
                stream.notify(None);
            }
        }
        let mut finished = core::mem::take(&mut *results.finished.lock());
        finished.sort_by_key(|f| (f.vm, f.vcpu.index()));
        finished
    }
}

/// Sends each vCPU to its CPU; that of the boot CPU is run here, last.
fn send<B: Backend>(jobs: Vec<Job<B>>) {
    let mut own = None;
    for job in jobs {
        let cpu = job.finished.cpu;
        if cpu == BOOT_CPU {
            own = Some(job);
            continue;
        }
        // A job that is refused is dropped with its closure, so its end is noted before.
        let (number, control, results) = (job.number, job.control.clone(), job.results.clone());
        let send = || COKERNEL.run_on(cpu, Box::new(move || job.run()));
        if let Err(error) = faults::working_for(number, send) {
            log::error!("a vCPU could not be started: {error}");
            control.end(EndReason::Stopped("a CPU of the host was not free"));
            results.running.fetch_sub(1, Ordering::AcqRel);
        }
    }
    if let Some(job) = own {
        job.run();
    }
}

impl<B: Backend> Job<B> {
    fn run(self) {
        let Self { number, mut finished, backend, control, results } = self;
        match backend.enter_cpu() {
            Ok(()) => {
                faults::working_for(number, || finished.vcpu.run());
                backend.leave_cpu();
            }
            Err(error) => {
                log::error!("{} cannot run guests: {error}", finished.cpu);
                control.end(EndReason::Stopped("a CPU of the host cannot run guests"));
            }
        }
        results.finished.lock().push(finished);
        results.running.fetch_sub(1, Ordering::AcqRel);
        COKERNEL.kick(BOOT_CPU);
    }
}
