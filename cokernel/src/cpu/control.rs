// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers as the co-kernel wants them on every CPU.

use raw_cpuid::CpuId;
use x86::controlregs::{Cr0, Cr4, cr0, cr0_write, cr4, cr4_write};

/// Turns on what protects the kernel (WP, SMEP, SMAP, UMIP), machine checks, without which the
/// hardware's failure is a reset that nobody explains, global pages, and the register state
/// (FXSAVE, XSAVE) that a library switching extended state needs. The co-kernel itself uses no
/// floating point.
pub(crate) fn enable_features() {
    let cpuid = CpuId::new();
    let extended = cpuid.get_extended_feature_info();
    let has = |f: &dyn Fn(&raw_cpuid::ExtendedFeatures) -> bool| extended.as_ref().is_some_and(f);
    let basic = cpuid.get_feature_info();
    let optional = [
        (basic.as_ref().is_some_and(|f| f.has_mce()), Cr4::CR4_ENABLE_MACHINE_CHECK),
        (basic.as_ref().is_some_and(|f| f.has_pge()), Cr4::CR4_ENABLE_GLOBAL_PAGES),
        (basic.as_ref().is_some_and(|f| f.has_fxsave_fxstor()), Cr4::CR4_ENABLE_SSE),
        (basic.as_ref().is_some_and(|f| f.has_sse()), Cr4::CR4_UNMASKED_SSE),
        (basic.as_ref().is_some_and(|f| f.has_xsave()), Cr4::CR4_ENABLE_OS_XSAVE),
        (has(&|f| f.has_smep()), Cr4::CR4_ENABLE_SMEP),
        (has(&|f| f.has_smap()), Cr4::CR4_ENABLE_SMAP),
        (has(&|f| f.has_umip()), Cr4::CR4_ENABLE_UMIP),
    ];
    // SAFETY: each bit is set only where CPUID offers it; no user page exists for SMEP and SMAP
    // to forbid; CR0 keeps paging and protection as they are.
    unsafe {
        let wanted = optional.iter().filter(|(present, _)| *present);
        cr4_write(wanted.fold(cr4(), |bits, (_, bit)| bits | *bit));
        let fpu_traps = Cr0::CR0_EMULATE_COPROCESSOR | Cr0::CR0_TASK_SWITCHED;
        let protections =
            Cr0::CR0_WRITE_PROTECT | Cr0::CR0_MONITOR_COPROCESSOR | Cr0::CR0_NUMERIC_ERROR;
        cr0_write((cr0() - fpu_traps) | protections);
    }
}
