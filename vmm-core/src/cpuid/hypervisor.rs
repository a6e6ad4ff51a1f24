// SPDX-License-Identifier: MIT OR Apache-2.0
//! The leaves from 0x4000_0000 on, which tell a guest that it is one.
//!
//! Two interfaces are offered. Alcazar's own, at the first base, has nothing but the signature
//! and the frequencies. The second, at the next multiple of 0x100, is the one that KVM
//! defined (Linux, Documentation/virt/kvm/x86/cpuid.rst): guests look for its signature at
//! every such base, and get their clock and its frequency from it without calibration.

use super::{
    CpuidModel, CpuidResult,
    table::{Leaf, LeafRange},
};
use crate::apic::APIC_BUS_HZ;

/// First leaf of Alcazar's interface.
pub const HYPERVISOR_BASE: u32 = 0x4000_0000;
/// First leaf of the KVM-compatible interface.
pub const KVM_BASE: u32 = 0x4000_0100;

const FREQUENCY_LEAF: u32 = 0x10;

/// The guest need not delay after port accesses.
pub const KVM_FEATURE_NOP_IO_DELAY: u32 = 1 << 1;
/// The clock at MSRs 0x4b56_4d00 and 0x4b56_4d01.
pub const KVM_FEATURE_CLOCKSOURCE2: u32 = 1 << 3;
/// The clock is the same on all vCPUs.
pub const KVM_FEATURE_CLOCKSOURCE_STABLE: u32 = 1 << 24;

/// Alcazar's own leaves.
pub(super) fn own(model: &CpuidModel) -> LeafRange {
    let last = HYPERVISOR_BASE + FREQUENCY_LEAF;
    let mut range = LeafRange::new(HYPERVISOR_BASE, last);
    range.set(0, Leaf::Single(signature(last, b"AlcazarVMM\0\0")));
    let bus_khz = u32::try_from(APIC_BUS_HZ / 1000).unwrap_or(u32::MAX);
    let frequencies = CpuidResult::new(model.tsc_khz, bus_khz, 0, 0);
    range.set(FREQUENCY_LEAF, Leaf::Single(frequencies));
    range
}

/// The KVM-compatible leaves. Without hints and without the features that need a hypercall.
pub(super) fn kvm() -> LeafRange {
    let last = KVM_BASE + 1;
    let mut range = LeafRange::new(KVM_BASE, last);
    range.set(0, Leaf::Single(signature(last, b"KVMKVMKVM\0\0\0")));
    let features =
        KVM_FEATURE_CLOCKSOURCE2 | KVM_FEATURE_CLOCKSOURCE_STABLE | KVM_FEATURE_NOP_IO_DELAY;
    range.set(1, Leaf::Single(CpuidResult::new(features, 0, 0, 0)));
    range
}

/// A first leaf: the last leaf, and twelve characters in EBX, ECX and EDX.
fn signature(last: u32, name: &[u8; 12]) -> CpuidResult {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *name;
    CpuidResult::new(
        last,
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
        u32::from_le_bytes([i, j, k, l]),
    )
}
