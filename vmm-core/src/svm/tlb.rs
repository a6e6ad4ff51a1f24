// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's translations: under which ASID they are, and when they are dropped (AMD APM
//! vol. 2, 15.16).

use super::{
    asid::{Asid, AsidUse},
    capability::SvmFeatures,
    cpu::per_cpu,
    vcpu::SvmVcpu,
    vmcb::tlb_control,
};

impl SvmVcpu {
    /// True if the guest cannot be entered again under the same identifier and with nothing
    /// dropped. A CPU hands out identifiers only to the vCPU that is loaded there, so that this one
    /// stays good from entry to entry.
    #[inline]
    pub(super) fn has_tlb_work(&self) -> bool {
        self.flush_wanted || self.vmcb().control.tlb_control != tlb_control::KEEP
    }

    /// Makes sure of an identifier that is good on this CPU, and of a flush if one is due. The
    /// guest is entered next for certain: the pool counts on the flush.
    pub(super) fn prepare_tlb(&mut self) {
        let Some(cpu) = self.cpu else { return };
        let by_asid = self.capabilities.has(SvmFeatures::FLUSH_BY_ASID);
        let flush_wanted = core::mem::take(&mut self.flush_wanted);
        let current = if self.asid_cpu == Some(cpu) { self.asid } else { Asid::default() };
        let Some(per_cpu) = per_cpu(&self.cpus, cpu) else { return };
        let mut pool = per_cpu.asids.lock();
        let used = match pool.ensure(current) {
            // Without a flush of one identifier, a new identifier does the same.
            AsidUse::Current if flush_wanted && !by_asid => pool.assign(),
            used => used,
        };
        drop(pool);
        let tlb = match used {
            AsidUse::Current if flush_wanted => tlb_control::FLUSH_ASID,
            AsidUse::Current | AsidUse::Fresh(_) => tlb_control::KEEP,
            AsidUse::FreshAfterFlush(_) => tlb_control::FLUSH_ALL,
        };
        if let AsidUse::Fresh(asid) | AsidUse::FreshAfterFlush(asid) = used {
            self.asid = asid;
            self.asid_cpu = Some(cpu);
            self.vmcb_mut().control.asid = asid.number;
        }
        self.vmcb_mut().control.tlb_control = tlb;
    }

    /// The CPU refused the entry, and with it maybe the flush that came with it.
    pub(super) fn distrust_tlb(&mut self) {
        if let Some(per_cpu) = self.cpu.and_then(|cpu| per_cpu(&self.cpus, cpu)) {
            per_cpu.asids.lock().forget();
        }
    }
}
