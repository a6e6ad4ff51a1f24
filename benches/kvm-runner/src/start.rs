// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state in which a first vCPU begins.

use anyhow::{Result, ensure};
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_segment};
use kvm_ioctls::VcpuFd;

use crate::image::Entry;

/// Protection enable, extension type, paging (Intel SDM, volume 3A, 2.5).
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
/// Long mode enabled and active.
const EFER_LONG: u64 = 1 << 8 | 1 << 10;

/// The default memory type, which firmware would have set: on, with write-back everywhere
/// (Intel SDM, volume 3A, 12.11.2.1).
const MSR_MTRR_DEFAULT: u32 = 0x2FF;
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Types of segments: code and data that were accessed, a busy TSS.
const CODE: u8 = 0xB;
const DATA: u8 = 3;
const TSS: u8 = 0xB;

/// Sets the registers as the boot protocol demands.
///
/// # Errors
/// When KVM refuses.
pub fn set(vcpu: &VcpuFd, entry: Entry) -> Result<()> {
    let mut special = vcpu.get_sregs()?;
    let mut registers = vcpu.get_regs()?;
    let (code, data) = match entry {
        Entry::Pvh { rip, start_info } => {
            special.cr0 = CR0_PE | CR0_ET;
            special.cr4 = 0;
            (registers.rip, registers.rbx) = (rip, start_info);
            (flat(8, CODE), flat(16, DATA))
        }
        Entry::Linux { rip, zero_page, page_tables, gdt: (base, limit) } => {
            special.cr0 = CR0_PE | CR0_ET | CR0_PG;
            special.cr3 = page_tables;
            special.cr4 = CR4_PAE;
            special.efer = EFER_LONG;
            (special.gdt.base, special.gdt.limit) = (base, limit);
            (registers.rip, registers.rsi) = (rip, zero_page);
            set_memory_type(vcpu)?;
            (kvm_segment { db: 0, l: 1, ..flat(0x10, CODE) }, flat(0x18, DATA))
        }
    };
    special.cs = code;
    (special.ds, special.es, special.ss) = (data, data, data);
    (special.fs, special.gs) = (data, data);
    special.tr = kvm_segment { limit: 0x67, type_: TSS, present: 1, ..kvm_segment::default() };
    vcpu.set_sregs(&special)?;
    registers.rflags = 2;
    vcpu.set_regs(&registers)?;
    Ok(())
}

fn flat(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

fn set_memory_type(vcpu: &VcpuFd) -> Result<()> {
    let entry =
        kvm_msr_entry { index: MSR_MTRR_DEFAULT, data: MTRR_WRITE_BACK, ..Default::default() };
    let msrs = Msrs::from_entries(&[entry])?;
    ensure!(vcpu.set_msrs(&msrs)? == 1, "KVM refuses the default memory type");
    Ok(())
}
