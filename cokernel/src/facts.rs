// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine is.

use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicU64, Ordering};

use raw_cpuid::CpuId;
use spin::Once;

use crate::{acpi::Acpi, memory, smp, time};

static ACPI: Once<Acpi> = Once::new();
static MEMORY_BYTES: AtomicU64 = AtomicU64::new(0);
static READY_TSC: AtomicU64 = AtomicU64::new(0);

/// Facts about the machine and the boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineFacts {
    /// CPUID vendor string.
    pub cpu_vendor: String,
    /// CPUID brand string; empty if there is none.
    pub cpu_brand: String,
    /// CPUs that run.
    pub cpus: u32,
    /// Usable memory in the boot memory map, in bytes.
    pub memory_bytes: u64,
    /// Frequency of the TSC in hertz.
    pub tsc_hz: u64,
    /// Size of the image in memory, in bytes.
    pub image_bytes: u64,
    /// TSC when the boot loader entered the image.
    pub entry_tsc: u64,
    /// TSC ticks from there until `main` was called.
    pub boot_ticks: u64,
}

/// Collects the facts.
pub fn machine_facts() -> MachineFacts {
    let cpuid = CpuId::new();
    let vendor = cpuid.get_vendor_info();
    let brand = cpuid.get_processor_brand_string();
    let text = |s: &str| s.trim().to_string();
    MachineFacts {
        cpu_vendor: vendor.as_ref().map(|v| text(v.as_str())).unwrap_or_default(),
        cpu_brand: brand.as_ref().map(|b| text(b.as_str())).unwrap_or_default(),
        cpus: smp::cpu_count(),
        memory_bytes: MEMORY_BYTES.load(Ordering::Relaxed),
        tsc_hz: time::tsc_hz(),
        image_bytes: memory::image_bytes(),
        entry_tsc: time::entry_tsc(),
        boot_ticks: READY_TSC.load(Ordering::Relaxed).saturating_sub(time::entry_tsc()),
    }
}

/// The ACPI tables that were read.
pub fn acpi() -> Option<&'static Acpi> {
    ACPI.get()
}

pub(crate) fn set_acpi(acpi: Acpi) -> &'static Acpi {
    ACPI.call_once(|| acpi)
}

pub(crate) fn set_memory_bytes(bytes: u64) {
    MEMORY_BYTES.store(bytes, Ordering::Relaxed);
}

pub(crate) fn set_ready() {
    READY_TSC.store(time::tsc(), Ordering::Relaxed);
}
