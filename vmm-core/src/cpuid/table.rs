// SPDX-License-Identifier: MIT OR Apache-2.0
//! The leaves of one VM, laid out for the exit path.

use alloc::{vec, vec::Vec};

use super::{
    CpuidModel, Vendor, amd,
    features::{
        extended1_edx, extended8_ebx, extended21_eax, leaf1_ecx, leaf1_edx, leaf7_ebx, leaf7_ecx,
        leaf7_edx,
    },
    hypervisor::{self, HYPERVISOR_BASE, KVM_BASE},
    intel,
    xsave::XsaveLayout,
};
use crate::paging::walk::PagingFeatures;
use crate::state::{cr4, efer};

/// What one CPUID instruction answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub struct CpuidResult {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

impl CpuidResult {
    /// From the four registers in order.
    pub const fn new(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Self {
        Self { eax, ebx, ecx, edx }
    }
}

/// What an answer depends on beside the leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DynamicCpuid {
    /// The vCPU's CR4, for OSXSAVE.
    pub cr4: u64,
    /// The vCPU's XCR0, for the size of the XSAVE area: looked at for [`XSAVE_LEAF`] only.
    pub xcr0: u64,
    /// The vCPU's APIC ID, which is its core number, too.
    pub apic_id: u32,
    /// The local APIC is switched on in IA32_APIC_BASE.
    pub apic_enabled: bool,
}

/// Subleaves of one leaf.
#[derive(Clone, Debug, Default)]
#[repr(u8)]
pub(super) enum Leaf {
    /// The leaf does not exist: zeroes.
    #[default]
    Absent,
    /// The subleaf does not matter.
    Single(CpuidResult),
    /// Zeroes beyond the last.
    Indexed(Vec<CpuidResult>),
}

impl Leaf {
    #[inline(always)]
    fn get(&self, subleaf: u32) -> CpuidResult {
        match self {
            Self::Absent => CpuidResult::default(),
            Self::Single(result) => *result,
            Self::Indexed(results) => results.get(subleaf as usize).copied().unwrap_or_default(),
        }
    }
}

/// Consecutive leaves from a base on. The first says how far they go.
#[derive(Clone, Debug)]
pub(super) struct LeafRange {
    leaves: Vec<Leaf>,
}

impl LeafRange {
    pub(super) fn new(base: u32, last: u32) -> Self {
        Self { leaves: vec![Leaf::Absent; (last - base) as usize + 1] }
    }

    /// Sets the leaf `offset` after the base.
    pub(super) fn set(&mut self, offset: u32, leaf: Leaf) {
        if let Some(slot) = self.leaves.get_mut(offset as usize) {
            *slot = leaf;
        }
    }

    #[inline(always)]
    fn get(&self, offset: u32, subleaf: u32) -> CpuidResult {
        self.leaves.get(offset as usize).map_or_else(CpuidResult::default, |l| l.get(subleaf))
    }
}

/// The leaf that tells of XSAVE.
pub const XSAVE_LEAF: u32 = 0xD;

const EXTENDED_BASE: u32 = 0x8000_0000;

/// PRED_CMD exists on a CPU whose CPUID is `host`: Intel's say so together with SPEC_CTRL (Intel SDM
/// vol. 2, CPUID; AMD APM vol. 3, E.4.7).
fn has_prediction_barrier(host: &dyn Fn(u32, u32) -> CpuidResult) -> bool {
    let intel = host(0, 0).eax >= 7 && host(7, 0).edx & leaf7_edx::SPEC_CTRL != 0;
    let addresses = EXTENDED_BASE + 8;
    let has_leaf = host(EXTENDED_BASE, 0).eax >= addresses;
    intel || has_leaf && host(addresses, 0).ebx & extended8_ebx::IBPB != 0
}

/// Everything that CPUID answers to one VM's guest.
///
/// Leaves that do not exist read as zeroes, as AMD's CPUs answer. Intel's answer as the highest
/// basic leaf instead, which software cannot rely on, as it depends on the model.
#[derive(Clone, Debug)]
pub struct CpuidTable {
    model: CpuidModel,
    basic: LeafRange,
    extended: LeafRange,
    hypervisor: LeafRange,
    kvm: LeafRange,
    xsave: XsaveLayout,
    host_has_barrier: bool,
}

impl CpuidTable {
    /// Manufacturer of the model.
    pub fn vendor(&self) -> Vendor {
        self.model.vendor
    }

    /// The table of `model` on a host CPU whose CPUID is `host`, called with leaf and
    /// subleaf.
    pub fn new(model: CpuidModel, host: &dyn Fn(u32, u32) -> CpuidResult) -> Self {
        let xsave = XsaveLayout::of(host);
        let (basic, extended) = match model.vendor {
            Vendor::Amd => (amd::basic(&model, host, &xsave), amd::extended(&model, host)),
            Vendor::Intel => (intel::basic(&model, host, &xsave), intel::extended(&model, host)),
        };
        let hypervisor = hypervisor::own(&model);
        let host_has_barrier = has_prediction_barrier(host);
        Self { model, basic, extended, hypervisor, kvm: hypervisor::kvm(), xsave, host_has_barrier }
    }

    /// The host CPU has PRED_CMD, whether or not the model shows it.
    pub(crate) fn host_has_prediction_barrier(&self) -> bool {
        self.host_has_barrier
    }

    /// Answers one CPUID instruction.
    pub fn query(&self, leaf: u32, subleaf: u32, vcpu: &DynamicCpuid) -> CpuidResult {
        if let Some(result) = self.query_common(leaf, subleaf, vcpu) {
            return result;
        }
        match leaf >> 16 {
            0 => self.query_xsave(subleaf, vcpu),
            0x8000 => self.query_extended(leaf, subleaf, vcpu),
            0x4000 if leaf >= KVM_BASE => self.kvm.get(leaf - KVM_BASE, subleaf),
            0x4000 => self.hypervisor.get(leaf - HYPERVISOR_BASE, subleaf),
            _ => CpuidResult::default(),
        }
    }

    /// The model that the table was made of.
    pub fn model(&self) -> &CpuidModel {
        &self.model
    }

    /// Bits of a guest-physical address.
    pub fn physical_address_bits(&self) -> u8 {
        self.extended.get(8, 0).eax as u8
    }

    /// The components that XCR0 may enable; zero without XSAVE.
    pub fn supported_xcr0(&self) -> u64 {
        self.xsave.supported()
    }

    /// The bits of CR4 that the model's features allow.
    pub fn supported_cr4(&self) -> u64 {
        let (leaf1, leaf7) = (self.basic.get(1, 0), self.basic.get(7, 0));
        let rules = [
            (leaf1.edx & leaf1_edx::VME, cr4::VME | cr4::PVI),
            (leaf1.edx & leaf1_edx::TSC, cr4::TSD),
            (leaf1.edx & leaf1_edx::DE, cr4::DE),
            (leaf1.edx & leaf1_edx::PSE, cr4::PSE),
            (leaf1.edx & leaf1_edx::PAE, cr4::PAE),
            (leaf1.edx & leaf1_edx::MCE, cr4::MCE),
            (leaf1.edx & leaf1_edx::PGE, cr4::PGE),
            (leaf1.edx & leaf1_edx::FXSR, cr4::OSFXSR),
            (leaf1.edx & leaf1_edx::SSE, cr4::OSXMMEXCPT),
            (leaf1.ecx & leaf1_ecx::XSAVE, cr4::OSXSAVE),
            (leaf7.ebx & leaf7_ebx::FSGSBASE, cr4::FSGSBASE),
            (leaf7.ebx & leaf7_ebx::SMEP, cr4::SMEP),
            (leaf7.ebx & leaf7_ebx::SMAP, cr4::SMAP),
            (leaf7.ecx & leaf7_ecx::UMIP, cr4::UMIP),
        ];
        rules.iter().filter(|r| r.0 != 0).fold(cr4::PCE, |bits, r| bits | r.1)
    }

    /// The bits of EFER that the model's features allow, without LMA.
    pub fn supported_efer(&self) -> u64 {
        let edx = self.extended.get(1, 0).edx;
        let rules = [
            (extended1_edx::SYSCALL, efer::SCE),
            (extended1_edx::LONG_MODE, efer::LME),
            (extended1_edx::NX, efer::NXE),
            (extended1_edx::FFXSR, efer::FFXSR),
        ];
        rules.iter().filter(|r| edx & r.0 != 0).fold(0, |bits, r| bits | r.1)
    }

    /// LFENCE waits for all earlier instructions.
    pub(crate) fn lfence_serializes(&self) -> bool {
        self.extended.get(0x21, 0).eax & extended21_eax::LFENCE_SERIALIZING != 0
    }

    /// PRED_CMD exists for the guest.
    pub(crate) fn has_prediction_barrier(&self) -> bool {
        self.extended.get(8, 0).ebx & extended8_ebx::IBPB != 0
    }

    /// TSC_AUX exists.
    pub(crate) fn has_tsc_aux(&self) -> bool {
        self.extended.get(1, 0).edx & extended1_edx::RDTSCP != 0
    }

    /// What the processor model offers to paging.
    pub(crate) fn paging_features(&self) -> PagingFeatures {
        PagingFeatures {
            physical_address_bits: self.physical_address_bits(),
            gigabyte_pages: self.extended.get(1, 0).edx & extended1_edx::PAGE_1G != 0,
            table_global_reserved: self.model().vendor == Vendor::Amd,
        }
    }

    /// Answers for the leaves that are asked for most: the basic ones, but not that of XSAVE.
    #[inline(always)]
    pub fn query_common(
        &self,
        leaf: u32,
        subleaf: u32,
        vcpu: &DynamicCpuid,
    ) -> Option<CpuidResult> {
        if leaf >= 0x1_0000 || leaf == XSAVE_LEAF {
            return None;
        }
        let mut result = self.basic.get(leaf, subleaf);
        match leaf {
            1 => {
                result.ebx |= vcpu.apic_id << 24;
                if !vcpu.apic_enabled {
                    result.edx &= !leaf1_edx::APIC;
                }
                if vcpu.cr4 & cr4::OSXSAVE != 0 {
                    result.ecx |= leaf1_ecx::OSXSAVE;
                }
            }
            0xB => {
                result.ecx |= subleaf & 0xFF;
                result.edx = vcpu.apic_id;
            }
            _ => {}
        }
        Some(result)
    }

    fn query_xsave(&self, subleaf: u32, vcpu: &DynamicCpuid) -> CpuidResult {
        let mut result = self.basic.get(XSAVE_LEAF, subleaf);
        if self.xsave.supported() == 0 {
            return result;
        }
        match subleaf {
            0 => result.ebx = self.xsave.standard_size(vcpu.xcr0),
            1 if result.eax != 0 => result.ebx = self.xsave.compacted_size(vcpu.xcr0),
            _ => {}
        }
        result
    }

    fn query_extended(&self, leaf: u32, subleaf: u32, vcpu: &DynamicCpuid) -> CpuidResult {
        let mut result = self.extended.get(leaf - EXTENDED_BASE, subleaf);
        if leaf == amd::TOPOLOGY_LEAF && self.model.vendor == Vendor::Amd {
            result.eax = vcpu.apic_id;
            result.ebx |= vcpu.apic_id & 0xFF;
        }
        result
    }
}
