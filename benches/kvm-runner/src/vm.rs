// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual machine: made as KVM's users make theirs, and run to its end.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, kvm_pit_config, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::image::Entry;
use crate::memory::GuestMemory;
use crate::options::Options;
use crate::ports::Ports;

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
}

/// Makes the VM and runs it until a vCPU ends it.
///
/// # Errors
/// When KVM refuses something, or the guest ends otherwise than by its exit port.
pub fn run(options: &Options, memory: GuestMemory, entry: Entry) -> Result<End> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = kvm.create_vm().context("cannot make a VM")?;
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
    for id in (0..options.cpus).rev() {
        let vcpu = vcpu(&vm, id, &supported, entry)?;
        let (ports, ended) = (ports.clone(), ended.clone());
        thread::spawn(move || run_vcpu(vcpu, &ports, &ended));
    }
    drop(ended);
    let code = end.recv().context("the vCPUs ended without a word")??;
    let console = std::mem::take(&mut ports.lock().unwrap_or_else(PoisonError::into_inner).console);
    Ok(End { code, console })
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
        start_at(&vcpu, entry)?;
    }
    Ok(vcpu)
}

/// The state that the PVH protocol demands: 32-bit protected mode, flat, without paging.
fn start_at(vcpu: &VcpuFd, entry: Entry) -> Result<()> {
    let flat = |selector, kind| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let mut special = vcpu.get_sregs()?;
    special.cs = flat(8, 0xB);
    let data = flat(16, 3);
    (special.ds, special.es, special.ss) = (data, data, data);
    (special.fs, special.gs) = (data, data);
    special.tr = kvm_segment { limit: 0x67, type_: 0xB, present: 1, ..kvm_segment::default() };
    // Protection enable, extension type.
    special.cr0 = 0x11;
    special.cr4 = 0;
    vcpu.set_sregs(&special)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = entry.rip;
    registers.rbx = entry.start_info;
    registers.rflags = 2;
    vcpu.set_regs(&registers)?;
    Ok(())
}

fn run_vcpu(vcpu: VcpuFd, ports: &Mutex<Ports>, ended: &Sender<Result<u32>>) {
    // The receiver is gone when another vCPU has ended the VM.
    let _ = ended.send(until_end(vcpu, ports));
}

fn until_end(mut vcpu: VcpuFd, ports: &Mutex<Ports>) -> Result<u32> {
    let lock = || ports.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(code) = lock().write(port, data) {
                    return Ok(code);
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => lock().read(port, data),
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(u8::MAX),
            Ok(VcpuExit::MmioWrite(..)) => {}
            Ok(other) => bail!("the guest ended by {other:?}"),
            Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {}
            Err(error) => return Err(error).context("KVM cannot run the guest"),
        }
    }
}
