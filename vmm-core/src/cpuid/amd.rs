// SPDX-License-Identifier: MIT OR Apache-2.0
//! The leaves of AMD models (AMD APM vol. 3, appendix E).

use super::{
    CpuidModel, CpuidResult,
    common::{
        self, EXTENDED, HostCpuid, LAST_BASIC, SHARED_EDX, SHARED_EDX_OWN, address_bits,
        invariant_tsc,
    },
    features::{extended1_ecx, extended1_edx, extended8_ebx, extended21_eax},
    table::{Leaf, LeafRange},
    topology::{self, L1D, L1I, L2, L3, LINE},
    xsave::XsaveLayout,
};

const LAST_EXTENDED: u32 = 0x8000_0021;
/// Leaf with the APIC, core and node numbers.
pub(super) const TOPOLOGY_LEAF: u32 = 0x8000_001E;

const EXTENDED1_ECX: u32 = extended1_ecx::LAHF
    | extended1_ecx::CR8_LEGACY
    | extended1_ecx::LZCNT
    | extended1_ecx::SSE4A
    | extended1_ecx::MISALIGNED_SSE
    | extended1_ecx::PREFETCHW;

const EXTENDED1_EDX: u32 = SHARED_EDX
    | extended1_edx::SYSCALL
    | extended1_edx::NX
    | extended1_edx::MMX_EXTENSIONS
    | extended1_edx::FFXSR
    | extended1_edx::PAGE_1G
    | extended1_edx::RDTSCP
    | extended1_edx::LONG_MODE;

/// Security statements ("NO" bits) are facts of the host's silicon, and so pass through.
/// SPEC_CTRL and its features stay hidden: the world switch does not load that register.
const EXTENDED8_EBX: u32 = extended8_ebx::CLZERO
    | extended8_ebx::RESTORES_FP_ERROR_POINTERS
    | extended8_ebx::WBNOINVD
    | extended8_ebx::IBPB
    | extended8_ebx::SSB_NO
    | extended8_ebx::BTC_NO;

const EXTENDED21_EAX: u32 = extended21_eax::NO_NESTED_DATA_BREAKPOINT
    | extended21_eax::LFENCE_SERIALIZING
    | extended21_eax::NULL_SELECTOR_CLEARS_BASE;

/// Leaves 0 to 0xD.
pub(super) fn basic(model: &CpuidModel, host: HostCpuid<'_>, xsave: &XsaveLayout) -> LeafRange {
    let mut range = common::basic(model, host, xsave);
    range.set(0, Leaf::Single(vendor(LAST_BASIC)));
    range
}

/// Leaves 0x8000_0000 to 0x8000_0021.
pub(super) fn extended(model: &CpuidModel, host: HostCpuid<'_>) -> LeafRange {
    let host_last = host(EXTENDED, 0).eax;
    let host = |leaf| if leaf <= host_last { host(leaf, 0) } else { CpuidResult::default() };
    let mut range = LeafRange::new(EXTENDED, LAST_EXTENDED);
    range.set(0, Leaf::Single(vendor(LAST_EXTENDED)));
    range.set(1, Leaf::Single(extended1(model, host(EXTENDED + 1))));
    common::set_brand(&mut range, model);
    range.set(5, Leaf::Single(first_level_caches()));
    range.set(6, Leaf::Single(outer_caches()));
    range.set(7, Leaf::Single(invariant_tsc(model)));
    range.set(8, Leaf::Single(extended8(model, host(EXTENDED + 8))));
    range.set(0x1D, topology::cache_leaf(model));
    range.set(0x1E, Leaf::Single(CpuidResult::default()));
    let speculation = host(EXTENDED + 0x21).eax & EXTENDED21_EAX;
    range.set(0x21, Leaf::Single(CpuidResult::new(speculation, 0, 0, 0)));
    range
}

fn vendor(last: u32) -> CpuidResult {
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    CpuidResult::new(last, word(b"Auth"), word(b"cAMD"), word(b"enti"))
}

fn extended1(model: &CpuidModel, host: CpuidResult) -> CpuidResult {
    let mut ecx = host.ecx & EXTENDED1_ECX | extended1_ecx::TOPOLOGY_EXTENSIONS;
    if model.vcpus.get() > 1 {
        ecx |= extended1_ecx::CMP_LEGACY;
    }
    let edx = host.edx & EXTENDED1_EDX | SHARED_EDX_OWN;
    CpuidResult::new(model.signature(), 0, ecx, edx)
}

/// Leaf 0x8000_0005: caches; the TLBs are given as 64 fully associative entries.
fn first_level_caches() -> CpuidResult {
    const TLB: u32 = 0xFF << 24 | 64 << 16 | 0xFF << 8 | 64;
    let cache = |c: topology::Cache| c.kib << 24 | c.ways << 16 | 1 << 8 | LINE;
    CpuidResult::new(TLB, TLB, cache(L1D), cache(L1I))
}

/// Leaf 0x8000_0006: associativities are encoded (AMD APM vol. 3, table E-4), the size of the
/// third level in units of 512 KiB.
fn outer_caches() -> CpuidResult {
    const WAYS_8: u32 = 6;
    const WAYS_16: u32 = 8;
    let second = L2.kib << 16 | WAYS_8 << 12 | 1 << 8 | LINE;
    let third = (L3.kib / 512) << 18 | WAYS_16 << 12 | 1 << 8 | LINE;
    CpuidResult::new(0, 0, second, third)
}

fn extended8(model: &CpuidModel, host: CpuidResult) -> CpuidResult {
    let cores = (model.vcpus.get() - 1).min(0xFF) | model.core_id_bits().min(0xF) << 12;
    CpuidResult::new(address_bits(model, host), host.ebx & EXTENDED8_EBX, cores, 0)
}
