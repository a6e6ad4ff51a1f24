// SPDX-License-Identifier: MIT OR Apache-2.0
//! The leaves of AMD models (AMD APM vol. 3, appendix E).

use super::{
    CpuidModel, CpuidResult,
    features::{
        INVARIANT_TSC, extended1_ecx, extended1_edx, extended8_ebx, extended21_eax, leaf1_ecx,
        leaf1_edx, leaf7_ebx, leaf7_ecx, leaf7_edx,
    },
    table::{Leaf, LeafRange},
    topology::{self, L1D, L1I, L2, L3, LINE},
    xsave::{XSTATE_AVX, XSTATE_AVX512, XsaveLayout},
};

type HostCpuid<'a> = &'a dyn Fn(u32, u32) -> CpuidResult;

const LAST_BASIC: u32 = 0xD;
const EXTENDED: u32 = 0x8000_0000;
const LAST_EXTENDED: u32 = 0x8000_0021;
/// Leaf with the APIC, core and node numbers.
pub(super) const TOPOLOGY_LEAF: u32 = 0x8000_001E;

/// Leaf 1 ECX: what needs no more of the VMM than state that XSAVE or the backend switches.
const LEAF1_ECX: u32 = leaf1_ecx::SSE3
    | leaf1_ecx::PCLMULQDQ
    | leaf1_ecx::SSSE3
    | leaf1_ecx::CMPXCHG16B
    | leaf1_ecx::SSE41
    | leaf1_ecx::SSE42
    | leaf1_ecx::MOVBE
    | leaf1_ecx::POPCNT
    | leaf1_ecx::AES
    | leaf1_ecx::XSAVE
    | leaf1_ecx::RDRAND;

/// Leaf 1 ECX: usable only with AVX state.
const LEAF1_ECX_AVX: u32 = leaf1_ecx::FMA | leaf1_ecx::AVX | leaf1_ecx::F16C;

/// Leaf 1 ECX: emulated, whatever the host has.
const LEAF1_ECX_OWN: u32 = leaf1_ecx::X2APIC | leaf1_ecx::TSC_DEADLINE | leaf1_ecx::HYPERVISOR;

/// Features that leaves 1 and 0x8000_0001 share in EDX.
const SHARED_EDX: u32 = leaf1_edx::FPU
    | leaf1_edx::VME
    | leaf1_edx::DE
    | leaf1_edx::PSE
    | leaf1_edx::TSC
    | leaf1_edx::MSR
    | leaf1_edx::PAE
    | leaf1_edx::CMPXCHG8B
    | leaf1_edx::PGE
    | leaf1_edx::CMOV
    | leaf1_edx::PAT
    | leaf1_edx::PSE36
    | leaf1_edx::MMX
    | leaf1_edx::FXSR;

/// Shared features that are emulated.
const SHARED_EDX_OWN: u32 = leaf1_edx::MCE | leaf1_edx::MCA | leaf1_edx::APIC | leaf1_edx::MTRR;

const LEAF1_EDX: u32 =
    SHARED_EDX | leaf1_edx::SYSENTER | leaf1_edx::CLFLUSH | leaf1_edx::SSE | leaf1_edx::SSE2;

const LEAF7_EBX: u32 = leaf7_ebx::FSGSBASE
    | leaf7_ebx::BMI1
    | leaf7_ebx::SMEP
    | leaf7_ebx::BMI2
    | leaf7_ebx::ERMS
    | leaf7_ebx::RDSEED
    | leaf7_ebx::ADX
    | leaf7_ebx::SMAP
    | leaf7_ebx::CLFLUSHOPT
    | leaf7_ebx::CLWB
    | leaf7_ebx::SHA;

const LEAF7_ECX_AVX: u32 = leaf7_ecx::VAES | leaf7_ecx::VPCLMULQDQ;

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

/// Leaves 0 to 0xD. There is no MONITOR (5) and no thermal or performance leaf (6, 0xA).
pub(super) fn basic(model: &CpuidModel, host: HostCpuid, xsave: &XsaveLayout) -> LeafRange {
    let mut range = LeafRange::new(0, LAST_BASIC);
    range.set(0, Leaf::Single(vendor(LAST_BASIC)));
    range.set(1, Leaf::Single(leaf1(model, host(1, 0), xsave)));
    if host(0, 0).eax >= 7 {
        range.set(7, Leaf::Indexed([leaf7(host(7, 0), xsave)].into()));
    }
    range.set(0xB, topology::extended_topology_leaf(model));
    range.set(0xD, xsave.leaf());
    range
}

/// Leaves 0x8000_0000 to 0x8000_0021.
pub(super) fn extended(model: &CpuidModel, host: HostCpuid) -> LeafRange {
    let host_last = host(EXTENDED, 0).eax;
    let host = |leaf| if leaf <= host_last { host(leaf, 0) } else { CpuidResult::default() };
    let mut range = LeafRange::new(EXTENDED, LAST_EXTENDED);
    range.set(0, Leaf::Single(vendor(LAST_EXTENDED)));
    range.set(1, Leaf::Single(extended1(model, host(EXTENDED + 1))));
    for (offset, text) in (2..).zip(model.brand.chunks_exact(16)) {
        range.set(offset, Leaf::Single(brand(text)));
    }
    range.set(5, Leaf::Single(first_level_caches()));
    range.set(6, Leaf::Single(outer_caches()));
    let invariant = if model.invariant_tsc { INVARIANT_TSC } else { 0 };
    range.set(7, Leaf::Single(CpuidResult::new(0, 0, 0, invariant)));
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

fn leaf1(model: &CpuidModel, host: CpuidResult, xsave: &XsaveLayout) -> CpuidResult {
    let vcpus = model.vcpus.get().min(0xFF);
    let mut ecx = host.ecx & LEAF1_ECX | LEAF1_ECX_OWN;
    if xsave.supported() & XSTATE_AVX != 0 {
        ecx |= host.ecx & LEAF1_ECX_AVX;
    }
    if xsave.supported() == 0 {
        ecx &= !leaf1_ecx::XSAVE;
    }
    let mut edx = host.edx & LEAF1_EDX | SHARED_EDX_OWN;
    if vcpus > 1 {
        edx |= leaf1_edx::HTT;
    }
    CpuidResult::new(model.signature(), vcpus << 16 | (LINE / 8) << 8, ecx, edx)
}

fn leaf7(host: CpuidResult, xsave: &XsaveLayout) -> CpuidResult {
    let mut result = CpuidResult::new(
        0,
        host.ebx & LEAF7_EBX,
        host.ecx & (leaf7_ecx::UMIP | leaf7_ecx::RDPID),
        host.edx & leaf7_edx::FSRM,
    );
    if xsave.supported() & XSTATE_AVX != 0 {
        result.ebx |= host.ebx & leaf7_ebx::AVX2;
        result.ecx |= host.ecx & LEAF7_ECX_AVX;
    }
    if xsave.supported() & XSTATE_AVX512 != 0 {
        result.ebx |= host.ebx & leaf7_ebx::AVX512;
        result.ecx |= host.ecx & leaf7_ecx::AVX512;
    }
    result
}

fn extended1(model: &CpuidModel, host: CpuidResult) -> CpuidResult {
    let mut ecx = host.ecx & EXTENDED1_ECX | extended1_ecx::TOPOLOGY_EXTENSIONS;
    if model.vcpus.get() > 1 {
        ecx |= extended1_ecx::CMP_LEGACY;
    }
    let edx = host.edx & EXTENDED1_EDX | SHARED_EDX_OWN;
    CpuidResult::new(model.signature(), 0, ecx, edx)
}

fn brand(text: &[u8]) -> CpuidResult {
    let word = |n: usize| {
        let bytes = text.get(n * 4..n * 4 + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    CpuidResult::new(word(0), word(1), word(2), word(3))
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
    const LINEAR_BITS: u32 = 48;
    const LEAST_PHYSICAL_BITS: u32 = 36;
    let host_bits = if host.eax & 0xFF == 0 { LEAST_PHYSICAL_BITS } else { host.eax & 0xFF };
    let bits = u32::from(model.physical_address_bits).min(host_bits);
    let cores = (model.vcpus.get() - 1).min(0xFF) | model.core_id_bits().min(0xF) << 12;
    CpuidResult::new(bits | LINEAR_BITS << 8, host.ebx & EXTENDED8_EBX, cores, 0)
}
