// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model-specific registers that no hardware backend holds, and the rules for the values
//! of those that one does.
//!
//! [`VcpuMsrs`] answers what is listed in [`index`] and the local APIC's registers. Everything
//! else draws #GP, as an unimplemented MSR does in hardware.
//!
//! The backend holds EFER, STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE, FS_BASE, GS_BASE, the
//! SYSENTER registers, PAT and TSC_AUX, because the hardware loads and stores them. It asks
//! [`validate_efer`], [`validate_pat`], [`validate_tsc_aux`], [`validate_syscall_register`] and
//! [`is_canonical`] before it takes a value.
//!
//! What Linux 6.1 reads or writes on an AMD family 19h CPU without being prepared for a fault,
//! and where it is answered:
//!
//! | register | where in Linux | here |
//! |---|---|---|
//! | HWCR | `bsp_init_amd`: is the TSC at the P0 frequency? | `amd` |
//! | SYSCFG | `k8_check_syscfg_dram_mod_en`, before it reads MTRRs | `amd` |
//! | NB_CFG | `amd_bus_cpu_online`: enables extended configuration accesses | `amd` |
//! | MTRRs, PAT | `mtrr_bp_init`, `pat_init` | `mtrr`, backend |
//! | MCG_CAP | `__mcheck_cpu_cap_init`; no banks, so that no more follow | `machine_check` |
//! | IA32_APIC_BASE, x2APIC, TSC_DEADLINE | `check_x2apic`, `apic_*` | [`LocalApic`](crate::apic::LocalApic) |
//! | kvmclock | `kvm_register_clock`, `kvm_get_wallclock` | [`pvclock`](crate::pvclock) |
//! | EFER, STAR, LSTAR, CSTAR, SFMASK, bases | `syscall_init`, context switch | backend |
//! | TSC_AUX | `setup_getcpu`, with RDTSCP or RDPID | backend |
//!
//! On Intel's CPUs, instead of the first three:
//!
//! | register | where in Linux | here |
//! |---|---|---|
//! | IA32_BIOS_SIGN_ID | `intel_get_microcode_revision`, which writes it first | `intel` |
//! | IA32_MISC_ENABLE | `early_init_intel`, `init_intel` | `intel` |
//! | IA32_FEATURE_CONTROL, MISC_FEATURES_ENABLES, PLATFORM_INFO | `init_ia32_feat_ctl`, `init_intel_misc_features` | `intel` |
//!
//! Not reached, because their CPUID bits are hidden: SPEC_CTRL, VIRT_SPEC_CTRL, XSS,
//! MPERF/APERF, PPIN, OSVW, SEV, IBS, the core performance counters, CPPC, P-states. Linux is
//! prepared for a fault at: the legacy performance counters (it goes on without a PMU), RAPL,
//! DE_CFG, LS_CFG and PATCH_LEVEL.

mod amd;
mod context;
mod fault;
mod intel;
mod machine_check;
mod mtrr;
mod rules;
mod vcpu;
mod vendor;

pub mod index;

pub use amd::AmdMsrs;
pub use context::{MsrContext, MsrEffect};
pub use fault::GeneralProtection;
pub use intel::IntelMsrs;
pub use machine_check::MachineCheckMsrs;
pub use mtrr::Mtrrs;
pub use rules::{
    PAT_RESET, is_canonical, validate_efer, validate_pat, validate_syscall_register,
    validate_tsc_aux,
};
pub use vcpu::{VcpuMsrs, VcpuMsrsConfig, VcpuMsrsState};
pub use vendor::VendorMsrs;
