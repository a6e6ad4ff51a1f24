// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual machine: made as KVM's users make theirs, and run to its end.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::io::Errno;

use crate::clock::Moment;
use crate::cpus::Share;
use crate::image::Entry;
use crate::memory::GuestMemory;
use crate::ports::{COM1_LINE, Ports};
use crate::{start, usage};

/// Three pages below 4 GiB that KVM needs on Intel CPUs without unrestricted guests.
const TSS_ADDRESS: usize = 0xFFFB_D000;

/// CPUID leaf 1, ECX: the local APIC timer's TSC-deadline mode, which the in-kernel APIC has.
const TSC_DEADLINE: u32 = 1 << 24;

/// How a guest ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// What it wrote to its exit port.
    pub code: u32,
    /// What it wrote to its serial port.
    pub console: Vec<u8>,
    /// When it was about to execute its first instruction.
    pub started: Moment,
    /// Memory in use while the VM was still there.
    pub memory: String,
}

/// Makes the VM and runs it until a vCPU ends it, with a vCPU on each of these shares of the CPUs.
///
/// # Errors
/// When KVM refuses something, or the guest ends otherwise than by its exit port.
pub fn run(shares: Vec<Share>, memory: GuestMemory, entry: Entry) -> Result<End> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = Arc::new(kvm.create_vm().context("cannot make a VM")?);
    vm.set_tss_address(TSS_ADDRESS)?;
    vm.create_irq_chip().context("no in-kernel interrupt controllers")?;
    vm.create_pit2(kvm_pit_config::default()).context("no in-kernel timer")?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: memory.size(),
        userspace_addr: memory.address(),
    };
    // SAFETY: the mapping stays until the process ends, and this process has no reference into it.
    unsafe { vm.set_user_memory_region(region) }.context("KVM refuses the memory")?;
    let ports = Arc::new(Mutex::new(Ports::default()));
    let (ended, end) = mpsc::channel();
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let (starting, started) = mpsc::channel();
    for (id, share) in shares.into_iter().enumerate().rev() {
        let vcpu = vcpu(&vm, u64::try_from(id)?, &supported, entry)?;
        let (vm, ports, ended) = (vm.clone(), ports.clone(), ended.clone());
        let starting = (id == 0).then(|| starting.clone());
        thread::spawn(move || {
            if let Err(error) = share.take() {
                let _ = ended.send(Err(error));
                return;
            }
            if let Some(starting) = starting {
                // The receiver is there until the guest has ended.
                let _ = starting.send(Moment::now(&vcpu));
            }
            run_vcpu(vcpu, &vm, &ports, &ended);
        });
    }
    drop(ended);
    let code = end.recv().context("the vCPUs ended without a word")??;
    let started = started.recv().context("the first vCPU did not start")??;
    let memory = usage::line()?;
    let mut ports = ports.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(End { code, console: std::mem::take(&mut ports.serial.sent), started, memory })
}

/// A vCPU with what KVM supports; the first one ready to start, the others waiting for it.
fn vcpu(vm: &VmFd, id: u64, supported: &CpuId, entry: Entry) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(id).with_context(|| format!("cannot make vCPU {id}"))?;
    let mut cpuid = supported.clone();
    let apic_id = u32::try_from(id)?;
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            1 => {
                leaf.ebx = leaf.ebx & 0x00FF_FFFF | apic_id << 24;
                leaf.ecx |= TSC_DEADLINE;
            }
            0xB | 0x1F => leaf.edx = apic_id,
            _ => {}
        }
    }
    vcpu.set_cpuid2(&cpuid).context("KVM refuses its own CPUID")?;
    if id == 0 {
        start::set(&vcpu, entry)?;
    }
    Ok(vcpu)
}

fn run_vcpu(vcpu: VcpuFd, vm: &VmFd, ports: &Mutex<Ports>, ended: &Sender<Result<u32>>) {
    // The receiver is gone when another vCPU has ended the VM.
    let _ = ended.send(until_end(vcpu, vm, ports));
}

fn until_end(mut vcpu: VcpuFd, vm: &VmFd, ports: &Mutex<Ports>) -> Result<u32> {
    let lock = || ports.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                let mut ports = lock();
                if let Some(code) = ports.write(port, data) {
                    return Ok(code);
                }
                // What was written to the transmitter takes the interrupt back, until it is sent.
                follow(vm, &mut ports)?;
                ports.serial.transmit();
                follow(vm, &mut ports)?;
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                let mut ports = lock();
                ports.read(port, data);
                follow(vm, &mut ports)?;
            }
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(u8::MAX),
            Ok(VcpuExit::MmioWrite(..)) => {}
            Ok(other) => bail!("the guest ended by {other:?}"),
            Err(error) if is_to_be_repeated(error) => {}
            Err(error) => return Err(error).context("KVM cannot run the guest"),
        }
    }
}

/// Whether KVM has only come back early: for a signal, or when a vCPU that waited for the start-up
/// interrupt has got it (Linux, `Documentation/virt/kvm/api.rst`, 4.10).
fn is_to_be_repeated(error: kvm_ioctls::Error) -> bool {
    [Errno::INTR, Errno::AGAIN].iter().any(|early| early.raw_os_error() == error.errno())
}

/// Sets the serial port's interrupt line to what it is now.
fn follow(vm: &VmFd, ports: &mut Ports) -> Result<()> {
    match ports.line_change() {
        Some(level) => vm.set_irq_line(COM1_LINE, level).context("KVM refuses an interrupt"),
        None => Ok(()),
    }
}
