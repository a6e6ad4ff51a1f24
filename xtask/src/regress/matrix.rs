// SPDX-License-Identifier: MIT OR Apache-2.0
//! The matrix: on which CPUs which guests run.
//!
//! To add a CPU or a way of paging, add a [`Cpu`]; to add a guest, add it to `guest.rs` and to
//! the lists here.

use super::guest::{self, Guest};
use crate::platform::Platform;
use crate::run::options::Paging;

/// One CPU to run the co-kernel on, with one way of paging. A CPU that can page in both ways is
/// listed twice.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Machine around it.
    pub platform: Platform,
    /// CPU model, as the platform names it.
    pub model: &'static str,
    /// How guest-physical addresses are translated.
    pub paging: Paging,
    /// What `regress --full` runs here.
    pub guests: &'static [Guest],
    /// What of it `test` runs, too, and `regress` without `--full`.
    pub tested: &'static [Guest],
}

/// On QEMU, where Linux boots within seconds.
const QEMU_LINUX: &[Guest] = &[guest::CLOUD, guest::CLOUD_SMP2, guest::CLOUD_3G, guest::FULL];

/// On QEMU `test` runs these in rows of their own.
const QEMU_ALL: &[Guest] = &[
    guest::CLOUD,
    guest::CLOUD_SMP2,
    guest::CLOUD_3G,
    guest::FULL,
    guest::CLOUD_ELF,
    guest::ACPI,
    guest::CONSOLE,
    guest::COUNTER,
    guest::CPUID_LOOP,
    guest::DENIED,
    guest::EXCEPTIONS,
    guest::FIRMWARE,
    guest::HELLO,
    guest::MMIO,
    guest::MODES,
    guest::MSR_CPUID,
    guest::MULTIBOOT1,
    guest::MULTIBOOT1_FLAT,
    guest::MULTIBOOT2,
    guest::NMI,
    guest::PAGING,
    guest::PVH,
    guest::RAW,
    guest::RAW_REAL,
    guest::SMP,
    guest::STRIO,
    guest::TIMERS,
    guest::TCG_ENTRY_FAULTS,
];

/// On AMD models of Bochs. Five other guests end the emulated machine there, some in Bochs 2.7's
/// own panic; for `exceptions`, `mmio` and `strio` the cause is not known.
const BOCHS_AMD: &[Guest] = &[
    guest::CLOUD,
    guest::HELLO,
    guest::NMI,
    guest::PAGING,
    guest::TIMERS,
    guest::DENIED,
    guest::FIRMWARE,
    guest::BOCHS_SVM_ENTRY_FAULTS,
];

/// On Intel models of Bochs.
const BOCHS_INTEL: &[Guest] = &[
    guest::CLOUD,
    guest::HELLO,
    guest::EXCEPTIONS,
    guest::MODES,
    guest::MSR_CPUID,
    guest::MMIO,
    guest::NMI,
    guest::PAGING,
    guest::STRIO,
    guest::ACPI,
    guest::CPUID_LOOP,
];

/// On the Intel model that tests run on.
const BOCHS_INTEL_ALL: &[Guest] = &[
    guest::CLOUD,
    guest::HELLO,
    guest::EXCEPTIONS,
    guest::MODES,
    guest::MSR_CPUID,
    guest::MMIO,
    guest::NMI,
    guest::PAGING,
    guest::STRIO,
    guest::ACPI,
    guest::CPUID_LOOP,
    guest::TIMERS,
    guest::DENIED,
    guest::FIRMWARE,
    guest::MULTIBOOT1_FLAT,
    guest::MULTIBOOT2,
    guest::PVH,
    guest::RAW_REAL,
    guest::VMX_ENTRY_FAULTS,
];

/// On the Intel model that does not execute real mode: application processors start there.
const BOCHS_INTEL_INTERPRETED: &[Guest] = &[
    guest::CLOUD,
    guest::CLOUD_SMP2,
    guest::HELLO,
    guest::EXCEPTIONS,
    guest::MODES,
    guest::MSR_CPUID,
    guest::MMIO,
    guest::NMI,
    guest::PAGING,
    guest::STRIO,
    guest::ACPI,
    guest::SMP,
    guest::FIRMWARE,
    guest::RAW_REAL,
    guest::TIMERS,
    guest::DENIED,
];

const fn qemu(model: &'static str, guests: &'static [Guest], tested: &'static [Guest]) -> Cpu {
    Cpu { platform: Platform::Qemu, model, paging: Paging::Nested, guests, tested }
}

const fn bochs(model: &'static str, guests: &'static [Guest], tested: &'static [Guest]) -> Cpu {
    Cpu { platform: Platform::Bochs, model, paging: Paging::Nested, guests, tested }
}

/// The matrix. The first guest of the first CPU is what `test --quick` runs.
pub const CPUS: &[Cpu] = &[
    qemu("max", QEMU_ALL, QEMU_LINUX),
    qemu("max,-x2apic", QEMU_LINUX, &[guest::CLOUD]),
    qemu("EPYC", QEMU_LINUX, &[guest::CLOUD]),
    bochs(
        "ryzen",
        BOCHS_AMD,
        &[guest::HELLO, guest::NMI, guest::PAGING, guest::TIMERS, guest::BOCHS_SVM_ENTRY_FAULTS],
    ),
    bochs("zambezi", BOCHS_AMD, &[]),
    bochs("phenom_8650_toliman", BOCHS_AMD, &[]),
    bochs(
        "tigerlake",
        BOCHS_INTEL_ALL,
        &[
            guest::CLOUD,
            guest::HELLO,
            guest::EXCEPTIONS,
            guest::MODES,
            guest::MSR_CPUID,
            guest::NMI,
            guest::CPUID_LOOP,
            guest::PAGING,
            guest::VMX_ENTRY_FAULTS,
        ],
    ),
    bochs("corei7_skylake_x", BOCHS_INTEL, &[]),
    bochs("corei7_haswell_4770", BOCHS_INTEL, &[]),
    bochs("corei7_sandy_bridge_2600k", BOCHS_INTEL, &[]),
    // No unrestricted guest: real mode is interpreted.
    bochs("corei5_lynnfield_750", BOCHS_INTEL_INTERPRETED, &[guest::HELLO, guest::MODES]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::platform::bochs::models;

    #[test]
    fn what_is_tested_is_part_of_what_runs() {
        for cpu in CPUS {
            let guests: HashSet<&str> = cpu.guests.iter().map(|guest| guest.name).collect();
            assert_eq!(guests.len(), cpu.guests.len(), "{}: a guest twice", cpu.model);
            let tested: HashSet<&str> = cpu.tested.iter().map(|guest| guest.name).collect();
            assert_eq!(tested.len(), cpu.tested.len(), "{}: a guest twice", cpu.model);
            assert!(tested.is_subset(&guests), "{}", cpu.model);
        }
    }

    #[test]
    fn each_combination_is_listed_once() {
        let key = |cpu: &Cpu| (cpu.platform.name(), cpu.model, cpu.paging.name());
        let keys: HashSet<_> = CPUS.iter().map(key).collect();
        assert_eq!(keys.len(), CPUS.len());
    }

    #[test]
    fn bochs_has_the_models() {
        for cpu in CPUS.iter().filter(|cpu| cpu.platform == Platform::Bochs) {
            models::find(cpu.model).unwrap();
        }
    }
}
