// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUID leaves and features that nobody chose: none shows what the host has.

use std::num::NonZeroU32;

use crate::cpuid::{CpuidModel, CpuidResult, CpuidTable, DynamicCpuid};

const ALL: CpuidResult = CpuidResult::new(u32::MAX, u32::MAX, u32::MAX, u32::MAX);
const NONE: CpuidResult = CpuidResult::new(0, 0, 0, 0);

/// Both models on a host every bit of whose CPUID is set.
fn tables() -> [CpuidTable; 2] {
    let of = |model: CpuidModel| CpuidTable::new(model, &|_, _| ALL);
    let cpus = NonZeroU32::new(3).unwrap();
    [of(CpuidModel::amd(cpus, 2_000_000)), of(CpuidModel::intel(cpus, 2_000_000))]
}

const DYNAMIC: DynamicCpuid = DynamicCpuid { cr4: 0, xcr0: 1, apic_id: 1, apic_enabled: true };

#[test]
fn leaves_that_nobody_defined_are_zero() {
    for table in tables() {
        let last = |base| table.query(base, 0, &DYNAMIC).eax;
        let ends = [last(0), last(0x8000_0000), last(0x4000_0000), last(0x4000_0100)];
        for end in ends {
            assert!(end & 0xFFFF < 0x200, "{end:#x}");
            for beyond in [1, 2, 0x80, 0x8000] {
                let leaf = end + beyond;
                // The next range of the hypervisor's begins 0x100 leaves on.
                if (0x4000_0100..=ends[3]).contains(&leaf) {
                    continue;
                }
                for subleaf in [0, 1, u32::MAX] {
                    assert_eq!(table.query(leaf, subleaf, &DYNAMIC), NONE, "{leaf:#x}");
                }
            }
        }
        // Every range that could be one: Xen's, Transmeta's, Centaur's, and the very last.
        let bases = (0..=0xFFFF_u32).map(|high| high << 16);
        for base in bases.filter(|base| ![0, 0x4000_0000, 0x8000_0000].contains(base)) {
            for leaf in [base, base + 1, base + 0xFFFF] {
                assert_eq!(table.query(leaf, 0, &DYNAMIC), NONE, "{leaf:#x}");
            }
        }
    }
}

#[test]
fn no_subleaf_goes_on_for_ever() {
    for table in tables() {
        for leaf in [4, 7, 0xB, 0xD, 0x8000_001D] {
            for subleaf in [64, 0x100, 0x8000_0000, u32::MAX] {
                let CpuidResult { eax, ebx, ecx, .. } = table.query(leaf, subleaf, &DYNAMIC);
                // Leaf 0xB repeats the subleaf in its lowest byte.
                let expected = if leaf == 0xB { subleaf & 0xFF } else { 0 };
                assert_eq!((eax, ebx, ecx), (0, 0, expected), "{leaf:#x}, {subleaf:#x}");
            }
        }
    }
}

/// Features whose state or MSRs no world switch knows, or which would let a guest out.
#[test]
fn what_was_not_chosen_is_hidden_on_a_host_that_has_everything() {
    for table in tables() {
        let hidden = [
            // MONITOR, VMX, SMX, PDCM, PCID, DCA; DS, ACPI, SS, TM, PBE.
            (1, 0, 2, 1 << 3 | 1 << 5 | 1 << 6 | 1 << 15 | 1 << 17 | 1 << 18),
            (1, 0, 3, 1 << 21 | 1 << 22 | 1 << 29 | 1 << 31),
            // SGX, HLE, INVPCID, RTM, PQM, MPX, PQE, processor trace.
            (7, 0, 1, 1 << 2 | 1 << 4 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 25),
            // PKU, OSPKE, WAITPKG, shadow stacks, LA57, key locker, SGX_LC, ENQCMD.
            (7, 0, 2, 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 16 | 1 << 23 | 1 << 30 | 1 << 29),
            // PCONFIG, LBR, indirect branch tracking, AMX, SPEC_CTRL, STIBP, SSBD.
            (7, 0, 3, 1 << 18 | 1 << 19 | 1 << 20 | 1 << 22 | 7 << 24 | 3 << 26 | 1 << 31),
            // SVM, OSVW, IBS, SKINIT, WDT, LWP, performance counters, MONITORX.
            (
                0x8000_0001,
                0,
                2,
                1 << 2 | 0xF << 9 | 1 << 12 | 1 << 13 | 1 << 15 | 3 << 23 | 1 << 29,
            ),
            // XSAVES.
            (0xD, 1, 0, 1 << 3),
            // SPEC_CTRL in its AMD form, SSBD, CPPC, PPIN.
            (0x8000_0008, 0, 1, 1 << 14 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 27),
        ];
        for (leaf, subleaf, register, bits) in hidden {
            let CpuidResult { eax, ebx, ecx, edx } = table.query(leaf, subleaf, &DYNAMIC);
            let value = [eax, ebx, ecx, edx][register];
            assert_eq!(value & bits, 0, "{leaf:#x}.{subleaf}, register {register}: {value:#x}");
        }
        // Leaves of performance counters, SGX, processor trace, SEV, SVM, resource control.
        for leaf in [0xA, 0xF, 0x10, 0x12, 0x14, 0x18, 0x8000_000A, 0x8000_001B, 0x8000_001F] {
            assert_eq!(table.query(leaf, 0, &DYNAMIC), NONE, "{leaf:#x}");
        }
        assert!(table.supported_xcr0() & !0xE7 == 0, "{:#x}", table.supported_xcr0());
    }
}
