// SPDX-License-Identifier: MIT OR Apache-2.0
//! Feature bits by name (AMD APM vol. 3, appendix E; Intel SDM vol. 2, CPUID).

/// Leaf 1, ECX.
pub(super) mod leaf1_ecx {
    pub const SSE3: u32 = 1 << 0;
    pub const PCLMULQDQ: u32 = 1 << 1;
    pub const SSSE3: u32 = 1 << 9;
    pub const FMA: u32 = 1 << 12;
    pub const CMPXCHG16B: u32 = 1 << 13;
    pub const SSE41: u32 = 1 << 19;
    pub const SSE42: u32 = 1 << 20;
    pub const X2APIC: u32 = 1 << 21;
    pub const MOVBE: u32 = 1 << 22;
    pub const POPCNT: u32 = 1 << 23;
    pub const TSC_DEADLINE: u32 = 1 << 24;
    pub const AES: u32 = 1 << 25;
    pub const XSAVE: u32 = 1 << 26;
    pub const OSXSAVE: u32 = 1 << 27;
    pub const AVX: u32 = 1 << 28;
    pub const F16C: u32 = 1 << 29;
    pub const RDRAND: u32 = 1 << 30;
    pub const HYPERVISOR: u32 = 1 << 31;
}

/// Leaf 1, EDX; leaf 0x8000_0001 EDX repeats most of it on AMD.
pub(super) mod leaf1_edx {
    pub const FPU: u32 = 1 << 0;
    pub const VME: u32 = 1 << 1;
    pub const DE: u32 = 1 << 2;
    pub const PSE: u32 = 1 << 3;
    pub const TSC: u32 = 1 << 4;
    pub const MSR: u32 = 1 << 5;
    pub const PAE: u32 = 1 << 6;
    pub const MCE: u32 = 1 << 7;
    pub const CMPXCHG8B: u32 = 1 << 8;
    pub const APIC: u32 = 1 << 9;
    pub const SYSENTER: u32 = 1 << 11;
    pub const MTRR: u32 = 1 << 12;
    pub const PGE: u32 = 1 << 13;
    pub const MCA: u32 = 1 << 14;
    pub const CMOV: u32 = 1 << 15;
    pub const PAT: u32 = 1 << 16;
    pub const PSE36: u32 = 1 << 17;
    pub const CLFLUSH: u32 = 1 << 19;
    pub const MMX: u32 = 1 << 23;
    pub const FXSR: u32 = 1 << 24;
    pub const SSE: u32 = 1 << 25;
    pub const SSE2: u32 = 1 << 26;
    pub const HTT: u32 = 1 << 28;
}

/// Leaf 7, subleaf 0, EBX.
pub(super) mod leaf7_ebx {
    pub const FSGSBASE: u32 = 1 << 0;
    pub const BMI1: u32 = 1 << 3;
    pub const AVX2: u32 = 1 << 5;
    pub const SMEP: u32 = 1 << 7;
    pub const BMI2: u32 = 1 << 8;
    pub const ERMS: u32 = 1 << 9;
    pub const RDSEED: u32 = 1 << 18;
    pub const ADX: u32 = 1 << 19;
    pub const SMAP: u32 = 1 << 20;
    pub const CLFLUSHOPT: u32 = 1 << 23;
    pub const CLWB: u32 = 1 << 24;
    pub const SHA: u32 = 1 << 29;
    /// AVX-512 F, DQ, IFMA, CD, BW and VL.
    pub const AVX512: u32 = 1 << 16 | 1 << 17 | 1 << 21 | 1 << 28 | 1 << 30 | 1 << 31;
}

/// Leaf 7, subleaf 0, ECX.
pub(super) mod leaf7_ecx {
    pub const UMIP: u32 = 1 << 2;
    pub const VAES: u32 = 1 << 9;
    pub const VPCLMULQDQ: u32 = 1 << 10;
    pub const RDPID: u32 = 1 << 22;
    /// AVX-512 VBMI, VBMI2, VNNI, BITALG and VPOPCNTDQ.
    pub const AVX512: u32 = 1 << 1 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14;
}

/// Leaf 7, subleaf 0, EDX.
pub(super) mod leaf7_edx {
    pub const FSRM: u32 = 1 << 4;
    /// SPEC_CTRL and PRED_CMD.
    pub const SPEC_CTRL: u32 = 1 << 26;
}

/// Leaf 0xD, subleaf 1, EAX.
pub(super) mod xsave_eax {
    pub const XSAVEOPT: u32 = 1 << 0;
    pub const XSAVEC: u32 = 1 << 1;
    pub const XGETBV_ECX1: u32 = 1 << 2;
}

/// Leaf 0x8000_0001, ECX.
pub(super) mod extended1_ecx {
    pub const LAHF: u32 = 1 << 0;
    pub const CMP_LEGACY: u32 = 1 << 1;
    pub const CR8_LEGACY: u32 = 1 << 4;
    pub const LZCNT: u32 = 1 << 5;
    pub const SSE4A: u32 = 1 << 6;
    pub const MISALIGNED_SSE: u32 = 1 << 7;
    pub const PREFETCHW: u32 = 1 << 8;
    pub const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
}

/// Leaf 0x8000_0001, EDX: what it does not share with leaf 1.
pub(super) mod extended1_edx {
    pub const SYSCALL: u32 = 1 << 11;
    pub const NX: u32 = 1 << 20;
    pub const MMX_EXTENSIONS: u32 = 1 << 22;
    pub const FFXSR: u32 = 1 << 25;
    pub const PAGE_1G: u32 = 1 << 26;
    pub const RDTSCP: u32 = 1 << 27;
    pub const LONG_MODE: u32 = 1 << 29;
}

/// Leaf 0x8000_0007, EDX.
pub(super) const INVARIANT_TSC: u32 = 1 << 8;

/// Leaf 0x8000_0008, EBX.
pub(super) mod extended8_ebx {
    pub const CLZERO: u32 = 1 << 0;
    /// FP error pointers are always restored.
    pub const RESTORES_FP_ERROR_POINTERS: u32 = 1 << 2;
    pub const WBNOINVD: u32 = 1 << 9;
    /// Indirect branch prediction barrier.
    pub const IBPB: u32 = 1 << 12;
    pub const SSB_NO: u32 = 1 << 26;
    pub const BTC_NO: u32 = 1 << 29;
}

/// Leaf 0x8000_0021, EAX.
pub(super) mod extended21_eax {
    pub const NO_NESTED_DATA_BREAKPOINT: u32 = 1 << 0;
    pub const LFENCE_SERIALIZING: u32 = 1 << 2;
    pub const NULL_SELECTOR_CLEARS_BASE: u32 = 1 << 6;
}
