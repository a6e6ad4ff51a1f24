// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's own state, which exits bring back (Intel SDM vol. 3, 24.5 and 27.5).

use core::arch::asm;

use x86::{
    controlregs,
    dtables::{DescriptorTablePointer, lgdt, lidt, sgdt, sidt},
    msr::{
        IA32_EFER, IA32_FS_BASE, IA32_GS_BASE, IA32_PAT, IA32_SYSENTER_CS, IA32_SYSENTER_EIP,
        IA32_SYSENTER_ESP, rdmsr,
    },
    segmentation::{SegmentSelector, cs, ds, es, fs, gs, ss},
    task::{load_tr, tr},
};

use super::{field::Field, switch, vmcs::Vmcs};
use crate::state::DescriptorTable;

/// Limit of TR after an exit (Intel SDM vol. 3, 27.5.2).
const TSS_LIMIT_AFTER_EXIT: u32 = 0x67;
/// In the high half of a TSS descriptor's first word: the TSS is busy.
const TSS_BUSY: u64 = 1 << 41;

/// What an exit does not bring back as it was: it leaves descriptor tables with the largest
/// limit, the task register with the smallest, and no LDT.
pub struct HostDescriptors {
    gdtr: DescriptorTable,
    idtr: DescriptorTable,
    ldt: u16,
    tss: u16,
    tss_limit: u32,
}

impl HostDescriptors {
    /// Writes the state of the calling CPU to the host fields of `vmcs`, and keeps what exits
    /// will lose.
    pub fn capture(vmcs: &mut Vmcs) -> Self {
        let mut gdtr = DescriptorTablePointer::<u64>::default();
        let mut idtr = DescriptorTablePointer::<u64>::default();
        let ldt: u16;
        // SAFETY: storing descriptor table registers writes to these variables only.
        unsafe {
            sgdt(&mut gdtr);
            sidt(&mut idtr);
            asm!("sldt {:x}", out(reg) ldt, options(nomem, nostack, preserves_flags));
        }
        // SAFETY: reading the task register has no effect.
        let tss = unsafe { tr() }.bits();
        capture_selectors(vmcs, tss);
        capture_registers(vmcs);
        vmcs.write(Field::HostGdtrBase, gdtr.base as u64);
        vmcs.write(Field::HostIdtrBase, idtr.base as u64);
        // SAFETY: the host's own GDT, with the TSS that it has loaded.
        vmcs.write(Field::HostTrBase, unsafe { tss_base(gdtr.base as u64, tss) });
        vmcs.write(Field::HostRip, switch::host_rip());
        let (gdtr, idtr) = (from_pointer(&gdtr), from_pointer(&idtr));
        Self { gdtr, idtr, ldt, tss, tss_limit: segment_limit(tss) }
    }

    /// Brings back on the calling CPU, where they were captured, what exits have lost.
    pub fn restore(&self) {
        // SAFETY: the host's own tables and selectors, as it had them loaded. The TSS is
        // marked available first, as LTR demands; no other CPU uses its descriptor.
        unsafe {
            lgdt(&to_pointer(self.gdtr));
            lidt(&to_pointer(self.idtr));
            asm!("lldt {:x}", in(reg) self.ldt, options(nostack, preserves_flags));
            if self.tss_limit != TSS_LIMIT_AFTER_EXIT {
                let descriptor = descriptor(self.gdtr.base, self.tss).cast_mut();
                descriptor.write_volatile(descriptor.read_volatile() & !TSS_BUSY);
                load_tr(SegmentSelector::from_raw(self.tss));
            }
        }
    }
}

/// Requested privilege level and table indicator have to be zero.
fn capture_selectors(vmcs: &mut Vmcs, tss: u16) {
    for (field, selector) in [
        (Field::HostEs, es().bits()),
        (Field::HostCs, cs().bits()),
        (Field::HostSs, ss().bits()),
        (Field::HostDs, ds().bits()),
        (Field::HostFs, fs().bits()),
        (Field::HostGs, gs().bits()),
        (Field::HostTr, tss),
    ] {
        vmcs.write(field, u64::from(selector));
    }
}

fn capture_registers(vmcs: &mut Vmcs) {
    // SAFETY: reading control registers and these MSRs, which every CPU with VT-x has, has no
    // effect.
    unsafe {
        vmcs.write(Field::HostCr0, controlregs::cr0().bits() as u64);
        vmcs.write(Field::HostCr3, controlregs::cr3());
        vmcs.write(Field::HostCr4, controlregs::cr4().bits() as u64);
        for (field, msr) in [
            (Field::HostFsBase, IA32_FS_BASE),
            (Field::HostGsBase, IA32_GS_BASE),
            (Field::HostSysenterCs, IA32_SYSENTER_CS),
            (Field::HostSysenterEsp, IA32_SYSENTER_ESP),
            (Field::HostSysenterEip, IA32_SYSENTER_EIP),
            (Field::HostPat, IA32_PAT),
            (Field::HostEfer, IA32_EFER),
        ] {
            vmcs.write(field, rdmsr(msr));
        }
    }
}

fn from_pointer(table: &DescriptorTablePointer<u64>) -> DescriptorTable {
    DescriptorTable { base: table.base as u64, limit: table.limit }
}

fn to_pointer(table: DescriptorTable) -> DescriptorTablePointer<u64> {
    DescriptorTablePointer { limit: table.limit, base: table.base as *const u64 }
}

fn descriptor(gdt: u64, selector: u16) -> *const u64 {
    (gdt as *const u64).wrapping_byte_add(usize::from(selector & !7))
}

/// Base address in the 16-byte descriptor of a 64-bit TSS (Intel SDM vol. 3, 7.2.3).
///
/// # Safety
/// `gdt` is the address of a GDT, and `selector` names a TSS in it.
unsafe fn tss_base(gdt: u64, selector: u16) -> u64 {
    let low = descriptor(gdt, selector);
    // SAFETY: the caller's promise.
    let (low, high) = unsafe { (low.read_volatile(), low.wrapping_add(1).read_volatile()) };
    (low >> 16 & 0xFF_FFFF) | (low >> 56) << 24 | high << 32
}

/// Limit of the segment that `selector` names, in bytes.
fn segment_limit(selector: u16) -> u32 {
    let limit: u32;
    // SAFETY: LSL changes a register and flags only.
    unsafe {
        asm!("xor {0:e}, {0:e}", "lsl {0:e}, {1:e}", out(reg) limit, in(reg) u32::from(selector),
            options(nomem, nostack));
    }
    limit
}
