// SPDX-License-Identifier: MIT OR Apache-2.0
//! Caches and cores: one package of single-threaded cores that share the last-level cache.

use alloc::vec;

use super::{CpuidModel, CpuidResult, table::Leaf};

/// Bytes of a cache line.
pub(super) const LINE: u32 = 64;

/// A cache as the topology leaves describe it.
#[derive(Clone, Copy)]
pub(super) struct Cache {
    kind: u32,
    level: u32,
    pub(super) kib: u32,
    pub(super) ways: u32,
    shared: bool,
    inclusive: bool,
}

const DATA: u32 = 1;
const INSTRUCTION: u32 = 2;
const UNIFIED: u32 = 3;

/// First-level data cache.
pub(super) const L1D: Cache =
    Cache { kind: DATA, level: 1, kib: 32, ways: 8, shared: false, inclusive: false };
/// First-level instruction cache.
pub(super) const L1I: Cache =
    Cache { kind: INSTRUCTION, level: 1, kib: 32, ways: 8, shared: false, inclusive: false };
/// Second-level cache.
pub(super) const L2: Cache =
    Cache { kind: UNIFIED, level: 2, kib: 512, ways: 8, shared: false, inclusive: true };
/// Last-level cache.
pub(super) const L3: Cache =
    Cache { kind: UNIFIED, level: 3, kib: 32 * 1024, ways: 16, shared: true, inclusive: false };

impl Cache {
    /// A subleaf in the form that leaf 0x8000_001D of AMD and leaf 4 of Intel share.
    fn subleaf(self, model: &CpuidModel) -> CpuidResult {
        const SELF_INITIALIZING: u32 = 1 << 8;
        const INCLUSIVE: u32 = 1 << 1;
        let sharing = if self.shared { (model.vcpus.get() - 1).min(0xFFF) } else { 0 };
        let sets = self.kib * 1024 / (LINE * self.ways);
        CpuidResult::new(
            self.kind | self.level << 5 | SELF_INITIALIZING | sharing << 14,
            (LINE - 1) | (self.ways - 1) << 22,
            sets - 1,
            if self.inclusive { INCLUSIVE } else { 0 },
        )
    }
}

/// Cache subleaves in order; the empty one after the last ends the list.
pub(super) fn cache_leaf(model: &CpuidModel) -> Leaf {
    Leaf::Indexed([L1D, L1I, L2, L3].iter().map(|c| c.subleaf(model)).collect())
}

/// Cache subleaves in the form of Intel's leaf 4: numbers are those of APIC IDs set aside, and
/// so powers of two.
pub(super) fn deterministic_cache_leaf(model: &CpuidModel) -> Leaf {
    let ids = 1 << model.core_id_bits().min(5);
    let subleaf = |cache: &Cache| {
        let own = cache.subleaf(model);
        let sharing = if cache.shared { ids - 1 } else { 0 };
        CpuidResult { eax: own.eax & 0x3FFF | sharing << 14 | (ids - 1) << 26, ..own }
    };
    Leaf::Indexed([L1D, L1I, L2, L3].iter().map(subleaf).collect())
}

/// Leaf 0xB: threads, then cores. The subleaf's number and the APIC ID are filled in per
/// query.
pub(super) fn extended_topology_leaf(model: &CpuidModel) -> Leaf {
    const SMT: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let threads = CpuidResult::new(0, 1, SMT, 0);
    let cores = CpuidResult::new(model.core_id_bits(), model.vcpus.get().min(0xFFFF), CORE, 0);
    Leaf::Indexed(vec![threads, cores])
}
