// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the models of all vendors have in common.

use super::{
    CpuidModel, CpuidResult,
    features::{INVARIANT_TSC, leaf1_ecx, leaf1_edx, leaf7_ebx, leaf7_ecx, leaf7_edx},
    table::{Leaf, LeafRange},
    topology::{self, LINE},
    xsave::{XSTATE_AVX, XSTATE_AVX512, XsaveLayout},
};

/// CPUID of the host CPU, called with leaf and subleaf.
pub(super) type HostCpuid<'a> = &'a dyn Fn(u32, u32) -> CpuidResult;

/// Last basic leaf.
pub(super) const LAST_BASIC: u32 = 0xD;
/// First extended leaf.
pub(super) const EXTENDED: u32 = 0x8000_0000;

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

/// Features that leaves 1 and 0x8000_0001 share in EDX on AMD.
pub(super) const SHARED_EDX: u32 = leaf1_edx::FPU
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
pub(super) const SHARED_EDX_OWN: u32 =
    leaf1_edx::MCE | leaf1_edx::MCA | leaf1_edx::APIC | leaf1_edx::MTRR;

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

/// Leaves 1 to 0xD. There is no MONITOR (5) and no thermal or performance leaf (6, 0xA).
pub(super) fn basic(model: &CpuidModel, host: HostCpuid<'_>, xsave: &XsaveLayout) -> LeafRange {
    let mut range = LeafRange::new(0, LAST_BASIC);
    range.set(1, Leaf::Single(leaf1(model, host(1, 0), xsave)));
    if host(0, 0).eax >= 7 {
        range.set(7, Leaf::Indexed([leaf7(host(7, 0), xsave)].into()));
    }
    range.set(0xB, topology::extended_topology_leaf(model));
    range.set(0xD, xsave.leaf());
    range
}

/// Leaves 0x8000_0002 to 0x8000_0004: the brand string.
pub(super) fn set_brand(extended: &mut LeafRange, model: &CpuidModel) {
    for (offset, text) in (2..).zip(model.brand.chunks_exact(16)) {
        extended.set(offset, Leaf::Single(brand(text)));
    }
}

/// Leaf 0x8000_0007.
pub(super) fn invariant_tsc(model: &CpuidModel) -> CpuidResult {
    CpuidResult::new(0, 0, 0, if model.invariant_tsc { INVARIANT_TSC } else { 0 })
}

/// EAX of leaf 0x8000_0008, where `host` is the host's answer.
pub(super) fn address_bits(model: &CpuidModel, host: CpuidResult) -> u32 {
    const LINEAR_BITS: u32 = 48;
    const LEAST_PHYSICAL_BITS: u32 = 36;
    let host_bits = if host.eax & 0xFF == 0 { LEAST_PHYSICAL_BITS } else { host.eax & 0xFF };
    u32::from(model.physical_address_bits).min(host_bits) | LINEAR_BITS << 8
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

fn brand(text: &[u8]) -> CpuidResult {
    let word = |n: usize| {
        let bytes = text.get(n * 4..n * 4 + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    CpuidResult::new(word(0), word(1), word(2), word(3))
}
