// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the builder of a VM chooses of its CPUs.

use core::num::NonZeroU32;

/// Manufacturer of the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// AMD; for guests under SVM.
    Amd,
    /// Intel; for guests under VT-x.
    Intel,
}

/// The CPU model that a VM's guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidModel {
    /// Manufacturer.
    pub vendor: Vendor,
    /// Family, with the extended family added, as CPUID tables print it.
    pub family: u32,
    /// Model, with the extended model above its low four bits.
    pub model: u32,
    /// Stepping, 0 to 15.
    pub stepping: u32,
    /// Brand string, padded with zeroes.
    pub brand: [u8; 48],
    /// Number of vCPUs: cores of one package, one thread each.
    pub vcpus: NonZeroU32,
    /// Bits of a guest-physical address; the host's number is a ceiling.
    pub physical_address_bits: u8,
    /// Frequency of the guest's time-stamp counter in kHz.
    pub tsc_khz: u32,
    /// Shows the TSC as invariant; true only if the host's is.
    pub invariant_tsc: bool,
}

impl CpuidModel {
    /// An AMD family 19h (Zen 3) CPU.
    pub const fn amd(vcpus: NonZeroU32, tsc_khz: u32) -> Self {
        Self::of(Vendor::Amd, [0x19, 0x01, 1], vcpus, tsc_khz)
    }

    /// An Intel Xeon of the third generation (Ice Lake).
    pub const fn intel(vcpus: NonZeroU32, tsc_khz: u32) -> Self {
        Self::of(Vendor::Intel, [0x6, 0x6A, 6], vcpus, tsc_khz)
    }

    const fn of(vendor: Vendor, signature: [u32; 3], vcpus: NonZeroU32, tsc_khz: u32) -> Self {
        let [family, model, stepping] = signature;
        Self {
            vendor,
            family,
            model,
            stepping,
            brand: *b"Alcazar vCPU\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            vcpus,
            physical_address_bits: 48,
            tsc_khz,
            invariant_tsc: true,
        }
    }

    /// Family, model and stepping as leaf 1 packs them (AMD CPUID specification, Fn0000_0001
    /// EAX; Intel SDM vol. 2, CPUID).
    pub(super) const fn signature(&self) -> u32 {
        let (base, extended) =
            if self.family > 0xF { (0xF, self.family - 0xF) } else { (self.family, 0) };
        (self.stepping & 0xF)
            | (self.model & 0xF) << 4
            | base << 8
            | (self.model >> 4 & 0xF) << 16
            | (extended & 0xFF) << 20
    }

    /// Bits of an APIC ID that number the cores of the package.
    pub(super) const fn core_id_bits(&self) -> u32 {
        u32::BITS - (self.vcpus.get() - 1).leading_zeros()
    }
}
