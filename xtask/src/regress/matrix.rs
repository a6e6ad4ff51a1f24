// SPDX-License-Identifier: MIT OR Apache-2.0
//! The matrix: on which CPUs which guests run.
//!
//! To add a CPU or a way of paging, add a [`Cpu`]; to add a guest, add it to `guest.rs` and to
//! the lists here.

use super::guest::{self, Guest};
use crate::platform::Platform;
use crate::run::options::{Paging, Switch};

/// One CPU to run the co-kernel on, with one way of paging and of serving local APICs. A CPU that
/// has several is listed once for each.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Machine around it.
    pub platform: Platform,
    /// CPU model, as the platform names it.
    pub model: &'static str,
    /// How guest-physical addresses are translated.
    pub paging: Paging,
    /// Whether the CPU does what it can of the local APICs' work.
    pub apicv: Switch,
    /// What `regress --full` runs here.
    guests: &'static [&'static [Guest]],
    /// What of it `test` runs, too, and `regress` without `--full`.
    pub tested: &'static [Guest],
}

impl Cpu {
    /// What `regress --full` runs here.
    pub fn guests(&self) -> impl Iterator<Item = &'static Guest> {
        self.guests.iter().copied().flatten()
    }

    /// How guests are run on it, as rows are named.
    pub fn way(&self) -> String {
        match self.apicv {
            Switch::On => self.paging.name().into(),
            Switch::Off => format!("{},apicv-off", self.paging.name()),
        }
    }
}

/// Bare-metal guests that run on every CPU.
const BARE_METAL: &[Guest] = &[
    guest::HELLO,
    guest::EXCEPTIONS,
    guest::MODES,
    guest::PRIVILEGE,
    guest::MSR_CPUID,
    guest::MMIO,
    guest::NMI,
    guest::PAGING,
    guest::STRIO,
    guest::ACPI,
    guest::TIMERS,
    guest::DENIED,
];

/// On QEMU, where Linux boots within seconds.
const QEMU_LINUX: &[Guest] = &[guest::CLOUD, guest::CLOUD_SMP2, guest::CLOUD_3G, guest::FULL];

/// What of the first CPU's `test` runs, and `regress` without `--full`.
const QEMU_TESTED: &[Guest] = &[
    guest::CLOUD,
    guest::CLOUD_SMP2,
    guest::CLOUD_3G,
    guest::FULL,
    guest::PAE32,
    guest::INSIDE,
    guest::INSIDE_SMALL,
    guest::STORM,
    guest::DRIFT,
];

/// All guests, on the first CPU; `test` runs the bare-metal ones in rows of its own.
const QEMU_ALL: &[&[Guest]] = &[
    BARE_METAL,
    QEMU_LINUX,
    &[
        guest::INSIDE,
        guest::INSIDE_SMALL,
        guest::STORM,
        guest::DRIFT,
        guest::DRIFT_LINUX,
        guest::CLOUD_ELF,
        guest::PAE32,
        guest::PAE32_SMP2,
        guest::PLAIN32,
        guest::CONSOLE,
        guest::COUNTER,
        guest::CPUID_LOOP,
        guest::FIRMWARE,
        guest::INTERRUPTS,
        guest::MULTIBOOT1,
        guest::MULTIBOOT1_FLAT,
        guest::MULTIBOOT2,
        guest::PVH,
        guest::RAW,
        guest::RAW_REAL,
        guest::SMP,
        guest::TASKS,
        guest::TCG_ENTRY_FAULTS,
        guest::TORTURE,
    ],
];

/// On QEMU without x2APIC mode, which the host's local APIC then lacks.
const QEMU_XAPIC: &[&[Guest]] = &[QEMU_LINUX, &[guest::INTERRUPTS]];

/// With shadow paging on QEMU, which does not leave task switches to the VMM.
const QEMU_SHADOW: &[&[Guest]] = &[
    BARE_METAL,
    &[
        guest::CLOUD,
        guest::CLOUD_SMP2,
        guest::PROCESSES,
        guest::PAE32,
        guest::PAE32_SMP2,
        guest::PLAIN32,
        guest::SMP,
        guest::TORTURE,
    ],
];

/// On AMD models of Bochs.
const BOCHS_AMD: &[&[Guest]] = &[
    BARE_METAL,
    &[
        guest::CLOUD,
        guest::INSIDE_SMALL,
        guest::INTERRUPTS,
        guest::TASKS,
        guest::CONSOLE,
        guest::SMP,
        guest::DRIFT,
        guest::FIRMWARE,
        guest::BOCHS_SVM_ENTRY_FAULTS,
    ],
];

/// On the AMD model of Bochs that has no nested paging.
const BOCHS_AMD_SHADOW: &[&[Guest]] = &[BARE_METAL, &[guest::CLOUD, guest::TASKS]];

/// On Intel models of Bochs.
const BOCHS_INTEL: &[&[Guest]] = &[
    BARE_METAL,
    &[
        guest::CLOUD,
        guest::INSIDE_SMALL,
        guest::DRIFT,
        guest::INTERRUPTS,
        guest::TASKS,
        guest::CONSOLE,
        guest::CPUID_LOOP,
        guest::SMP,
        guest::FIRMWARE,
        guest::MULTIBOOT1_FLAT,
        guest::MULTIBOOT2,
        guest::PVH,
        guest::RAW_REAL,
        guest::VMX_ENTRY_FAULTS,
        guest::TORTURE_SLOWLY,
    ],
];

/// On Intel models of Bochs whose APIC virtualization is not used: guests with many interrupts.
const BOCHS_INTEL_PLAIN: &[&[Guest]] = &[&[
    guest::CLOUD,
    guest::EXCEPTIONS,
    guest::MODES,
    guest::MSR_CPUID,
    guest::NMI,
    guest::CPUID_LOOP,
    guest::TIMERS,
    guest::SMP,
]];

/// On the Intel model that does not execute real mode: application processors start there.
const BOCHS_INTEL_INTERPRETED: &[&[Guest]] = &[
    BARE_METAL,
    &[
        guest::CLOUD,
        guest::CLOUD_SMP2,
        guest::TASKS,
        guest::CONSOLE,
        guest::SMP,
        guest::FIRMWARE,
        guest::RAW_REAL,
    ],
];

/// On Intel models of Bochs, on shadow page tables: real mode is interpreted there, too.
const BOCHS_INTEL_SHADOW: &[&[Guest]] =
    &[BARE_METAL, &[guest::CLOUD, guest::CLOUD_SMP2, guest::TASKS, guest::CPUID_LOOP]];

/// On the Intel model that has nothing else.
const BOCHS_INTEL_WITHOUT_EPT: &[&[Guest]] = &[
    BARE_METAL,
    &[
        guest::CLOUD,
        guest::PAE32_SMP2,
        guest::TASKS,
        guest::CPUID_LOOP,
        guest::SMP,
        guest::VMX_ENTRY_FAULTS_WITHOUT_EPT,
        guest::TORTURE_SLOWLY,
    ],
];

const fn qemu(
    model: &'static str,
    guests: &'static [&'static [Guest]],
    tested: &'static [Guest],
) -> Cpu {
    let (paging, apicv) = (Paging::Nested, Switch::On);
    Cpu { platform: Platform::Qemu, model, paging, apicv, guests, tested }
}

const fn bochs(
    model: &'static str,
    guests: &'static [&'static [Guest]],
    tested: &'static [Guest],
) -> Cpu {
    let (paging, apicv) = (Paging::Nested, Switch::On);
    Cpu { platform: Platform::Bochs, model, paging, apicv, guests, tested }
}

/// A CPU that virtualizes the local APIC, and is kept from it.
const fn bochs_plain(model: &'static str) -> Cpu {
    Cpu { apicv: Switch::Off, ..bochs(model, BOCHS_INTEL_PLAIN, &[]) }
}

/// The same CPU with shadow paging.
const fn shadow(cpu: Cpu) -> Cpu {
    Cpu { paging: Paging::Shadow, ..cpu }
}

/// The matrix. The first guest of the first CPU is what `test --quick` runs.
pub const CPUS: &[Cpu] = &[
    qemu("max", QEMU_ALL, QEMU_TESTED),
    qemu("max,-x2apic", QEMU_XAPIC, &[guest::CLOUD, guest::INTERRUPTS]),
    qemu("EPYC", &[QEMU_LINUX], &[guest::CLOUD]),
    shadow(qemu(
        "max",
        QEMU_SHADOW,
        &[guest::CLOUD, guest::PAE32, guest::PROCESSES, guest::PAGING],
    )),
    bochs(
        "ryzen",
        BOCHS_AMD,
        &[
            guest::HELLO,
            guest::EXCEPTIONS,
            guest::MODES,
            guest::MSR_CPUID,
            guest::NMI,
            guest::PAGING,
            guest::TIMERS,
            guest::BOCHS_SVM_ENTRY_FAULTS,
        ],
    ),
    bochs("zambezi", BOCHS_AMD, &[]),
    bochs("phenom_8650_toliman", BOCHS_AMD, &[]),
    // No nested paging.
    shadow(bochs("turion64_tyler", BOCHS_AMD_SHADOW, &[guest::HELLO])),
    bochs(
        "tigerlake",
        BOCHS_INTEL,
        &[
            guest::CLOUD,
            guest::HELLO,
            guest::EXCEPTIONS,
            guest::MODES,
            guest::MSR_CPUID,
            guest::NMI,
            guest::CONSOLE,
            guest::CPUID_LOOP,
            guest::PAGING,
            guest::VMX_ENTRY_FAULTS,
        ],
    ),
    bochs_plain("tigerlake"),
    bochs("corei7_skylake_x", BOCHS_INTEL, &[]),
    bochs("corei7_haswell_4770", BOCHS_INTEL, &[]),
    bochs_plain("corei7_haswell_4770"),
    bochs("corei7_sandy_bridge_2600k", BOCHS_INTEL, &[]),
    // No unrestricted guest: real mode is interpreted.
    bochs("corei5_lynnfield_750", BOCHS_INTEL_INTERPRETED, &[guest::HELLO, guest::MODES]),
    shadow(bochs("tigerlake", BOCHS_INTEL_SHADOW, &[guest::PAGING])),
    // Nothing but shadow paging.
    shadow(bochs(
        "core2_penryn_t9600",
        BOCHS_INTEL_WITHOUT_EPT,
        &[guest::HELLO, guest::MODES, guest::PAGING],
    )),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::platform::bochs::models;

    #[test]
    fn what_is_tested_is_part_of_what_runs() {
        for cpu in CPUS {
            let guests: HashSet<&str> = cpu.guests().map(|guest| guest.name).collect();
            assert_eq!(guests.len(), cpu.guests().count(), "{}: a guest twice", cpu.model);
            let tested: HashSet<&str> = cpu.tested.iter().map(|guest| guest.name).collect();
            assert_eq!(tested.len(), cpu.tested.len(), "{}: a guest twice", cpu.model);
            assert!(tested.is_subset(&guests), "{}", cpu.model);
        }
    }

    #[test]
    fn each_combination_is_listed_once() {
        let key = |cpu: &Cpu| (cpu.platform.name(), cpu.model, cpu.way());
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
