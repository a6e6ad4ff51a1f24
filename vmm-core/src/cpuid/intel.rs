// SPDX-License-Identifier: MIT OR Apache-2.0
//! The leaves of Intel models (Intel SDM vol. 2, CPUID).

use super::{
    CpuidModel, CpuidResult,
    common::{self, EXTENDED, HostCpuid, LAST_BASIC, address_bits, invariant_tsc},
    features::{extended1_ecx, extended1_edx},
    table::{Leaf, LeafRange},
    topology::{self, L2, LINE},
    xsave::XsaveLayout,
};

const LAST_EXTENDED: u32 = 0x8000_0008;

const EXTENDED1_ECX: u32 = extended1_ecx::LAHF | extended1_ecx::LZCNT | extended1_ecx::PREFETCHW;

const EXTENDED1_EDX: u32 = extended1_edx::SYSCALL
    | extended1_edx::NX
    | extended1_edx::PAGE_1G
    | extended1_edx::RDTSCP
    | extended1_edx::LONG_MODE;

/// Leaves 0 to 0xD. The frequency leaves (0x15, 0x16) are left out: what they have to say is
/// in the hypervisor's leaves, with a finer resolution.
pub(super) fn basic(model: &CpuidModel, host: HostCpuid<'_>, xsave: &XsaveLayout) -> LeafRange {
    let mut range = common::basic(model, host, xsave);
    range.set(0, Leaf::Single(vendor()));
    range.set(2, Leaf::Single(descriptors()));
    range.set(4, topology::deterministic_cache_leaf(model));
    range
}

/// Leaves 0x8000_0000 to 0x8000_0008.
pub(super) fn extended(model: &CpuidModel, host: HostCpuid<'_>) -> LeafRange {
    let host_last = host(EXTENDED, 0).eax;
    let host = |leaf| if leaf <= host_last { host(leaf, 0) } else { CpuidResult::default() };
    let mut range = LeafRange::new(EXTENDED, LAST_EXTENDED);
    range.set(0, Leaf::Single(CpuidResult::new(LAST_EXTENDED, 0, 0, 0)));
    let features = host(EXTENDED + 1);
    let features =
        CpuidResult::new(0, 0, features.ecx & EXTENDED1_ECX, features.edx & EXTENDED1_EDX);
    range.set(1, Leaf::Single(features));
    common::set_brand(&mut range, model);
    range.set(6, Leaf::Single(second_level_cache()));
    range.set(7, Leaf::Single(invariant_tsc(model)));
    let addresses = address_bits(model, host(EXTENDED + 8));
    range.set(8, Leaf::Single(CpuidResult::new(addresses, 0, 0, 0)));
    range
}

fn vendor() -> CpuidResult {
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    CpuidResult::new(LAST_BASIC, word(b"Genu"), word(b"ntel"), word(b"ineI"))
}

/// Leaf 2: one round of descriptors, of which the first says to look in leaf 4 for the caches
/// and the second gives TLBs of 64 entries.
fn descriptors() -> CpuidResult {
    const ROUNDS: u32 = 1;
    const SEE_LEAF_4: u32 = 0xFF;
    const DATA_TLB: u32 = 0x03;
    CpuidResult::new(DATA_TLB << 16 | SEE_LEAF_4 << 8 | ROUNDS, 0, 0, 0)
}

/// Leaf 0x8000_0006: the associativity is encoded.
fn second_level_cache() -> CpuidResult {
    const WAYS_8: u32 = 6;
    CpuidResult::new(0, 0, L2.kib << 16 | WAYS_8 << 12 | LINE, 0)
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;

    use super::super::{CpuidTable, DynamicCpuid};
    use super::*;

    /// A host with every feature there is, and others to come.
    fn everything(leaf: u32, _: u32) -> CpuidResult {
        match leaf {
            0 => CpuidResult::new(0x20, 0, 0, 0),
            EXTENDED => CpuidResult::new(LAST_EXTENDED, 0, 0, 0),
            0x8000_0008 => CpuidResult::new(0x3027, 0, 0, 0),
            0xD => CpuidResult::new(7, 0, 832, 0),
            _ => CpuidResult::new(u32::MAX, u32::MAX, u32::MAX, u32::MAX),
        }
    }

    fn table(vcpus: u32) -> CpuidTable {
        let vcpus = NonZeroU32::new(vcpus).unwrap();
        CpuidTable::new(CpuidModel::intel(vcpus, 2_000_000), &everything)
    }

    #[test]
    fn is_an_intel_cpu_without_vmx() {
        let table = table(1);
        let dynamic = DynamicCpuid::default();
        let vendor = table.query(0, 0, &dynamic);
        let text = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat();
        assert_eq!(text, b"GenuineIntel");
        let leaf1 = table.query(1, 0, &dynamic);
        assert_eq!(leaf1.eax, 0x0006_06A6);
        assert_eq!(leaf1.ecx & (1 << 5 | 1 << 3), 0, "no VMX, no MONITOR");
        let extended = table.query(0x8000_0001, 0, &dynamic);
        assert_eq!((extended.ecx, extended.edx), (0x121, 0x2C10_0800));
        assert_eq!(table.physical_address_bits(), 39);
    }

    #[test]
    fn the_host_has_its_prediction_barrier_although_no_guest_sees_it() {
        const SPEC_CTRL: u32 = 1 << 26;
        let of = |speculation: u32, last: u32| {
            let host = move |leaf, subleaf| match leaf {
                0 => CpuidResult::new(last, 0, 0, 0),
                7 => CpuidResult::new(0, 0, 0, speculation),
                0x8000_0008 => CpuidResult::new(0x3027, 0, 0, 0),
                _ => everything(leaf, subleaf),
            };
            let table = CpuidTable::new(CpuidModel::intel(NonZeroU32::MIN, 2_000_000), &host);
            let shown = table.query(0x8000_0008, 0, &DynamicCpuid::default()).ebx
                | table.query(7, 0, &DynamicCpuid::default()).edx & SPEC_CTRL;
            (table.host_has_prediction_barrier(), table.has_prediction_barrier(), shown)
        };
        assert_eq!(of(SPEC_CTRL, 0x20), (true, false, 0));
        assert!(!of(!SPEC_CTRL, 0x20).0);
        assert!(!of(SPEC_CTRL, 6).0, "there is no such leaf");
    }

    #[test]
    fn describes_caches_and_cores() {
        let table = table(3);
        let dynamic = DynamicCpuid::default();
        let first = table.query(4, 0, &dynamic);
        assert_eq!(first.eax >> 26, 3, "four core numbers");
        assert_eq!((first.eax & 0x1F, first.ebx >> 22, first.ecx), (1, 7, 63));
        assert_eq!(table.query(4, 3, &dynamic).eax >> 14 & 0xFFF, 3, "all cores share L3");
        assert_eq!(table.query(4, 4, &dynamic), CpuidResult::default());
        let cores = table.query(0xB, 1, &DynamicCpuid { apic_id: 2, ..dynamic });
        assert_eq!((cores.eax, cores.ebx, cores.edx), (2, 3, 2));
    }
}
