// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shadow MMU as the vCPUs share it.

use alloc::{sync::Arc, vec::Vec};

use host_iface::{Host, HostError, HostPhysAddr};
use spin::{Mutex, MutexGuard};

use super::{
    arena::StaleHandle,
    config::{ShadowConfig, default_budget},
    fault::FaultAction,
    mmu::{Mmu, ROOM},
    role::Gfn,
    shootdown::Shootdown,
    statistics::ShadowStatistics,
};
use crate::{
    Doorbell, GuestPhysAddr, PAGE_SIZE,
    memory::GuestMemory,
    paging::walk::{Access, AddressSpace, PagingFeatures},
};

/// The shadow MMU of one VM, behind its lock.
pub struct ShadowMmu {
    pub(super) mmu: Mutex<Mmu>,
    shootdown: Arc<Shootdown>,
}

impl ShadowMmu {
    /// An MMU for the vCPUs behind `doorbells`, by index, whose processor model has these
    /// `features`, and the guest with this `memory`. The budget of `config` holds at least [`least_tables`](super::least_tables).
    ///
    /// # Errors
    /// What the host answers when memory runs out; everything goes back then.
    pub fn new(
        host: &'static dyn Host,
        memory: &GuestMemory,
        config: ShadowConfig,
        features: PagingFeatures,
        doorbells: Vec<Doorbell>,
    ) -> Result<Self, HostError> {
        let budget = config.budget_bytes.unwrap_or_else(|| default_budget(memory.bytes()));
        let most = usize::try_from(budget / PAGE_SIZE).unwrap_or(usize::MAX).min(MOST_TABLES);
        let mmu = Mmu::new(host, memory, most, features, config.cache, doorbells)?;
        let shootdown = mmu.shootdown.clone();
        Ok(Self { mmu: Mutex::new(mmu), shootdown })
    }

    fn lock(&self, vcpu: u32) -> MutexGuard<'_, Mmu> {
        let mut mmu = self.mmu.lock();
        mmu.current = (vcpu as usize).min(mmu.roots.len().saturating_sub(1));
        mmu
    }

    /// Loads the root for `vcpu`, which is outside the guest, because its control registers were
    /// written. Returns what the CPU's CR3 has to hold.
    ///
    /// # Errors
    /// [`StaleHandle`]: a defect of the MMU.
    pub fn load_root(
        &self,
        vcpu: u32,
        memory: &GuestMemory,
        space: &AddressSpace,
    ) -> Result<HostPhysAddr, StaleHandle> {
        let mut mmu = self.lock(vcpu);
        mmu.statistics.roots_loaded += 1;
        if !mmu.cache {
            mmu.zap_all()?;
        }
        if mmu.make_room(ROOM)? {
            mmu.load_root(memory, space)?;
        } else {
            // The first fault says so.
            mmu.release_root()?;
        }
        Ok(mmu.root().address())
    }

    /// Deals with a page fault of `vcpu`. Returns what is left to do, and what the CPU's CR3 has
    /// to hold from now on.
    ///
    /// # Errors
    /// [`StaleHandle`]: a defect of the MMU.
    pub fn fault(
        &self,
        vcpu: u32,
        memory: &GuestMemory,
        space: &AddressSpace,
        address: u64,
        access: Access,
    ) -> Result<(FaultAction, HostPhysAddr), StaleHandle> {
        let mut mmu = self.lock(vcpu);
        let action = mmu.fault(memory, space, address, access)?;
        match action {
            FaultAction::Resume => mmu.statistics.faults_fixed += 1,
            FaultAction::Forward(_) => mmu.statistics.faults_forwarded += 1,
            FaultAction::Device(_) => mmu.statistics.faults_mmio += 1,
            _ => {}
        }
        Ok((action, mmu.root().address()))
    }

    /// `vcpu` invalidates the translation of `address`.
    ///
    /// # Errors
    /// [`StaleHandle`]: a defect of the MMU.
    pub fn invalidate(
        &self,
        vcpu: u32,
        memory: &GuestMemory,
        address: u64,
    ) -> Result<(), StaleHandle> {
        self.lock(vcpu).invalidate(memory, address)
    }

    /// The VMM wrote these bytes, of one page, on behalf of `vcpu`.
    ///
    /// # Errors
    /// [`StaleHandle`]: a defect of the MMU.
    pub fn wrote(
        &self,
        vcpu: u32,
        memory: &GuestMemory,
        address: GuestPhysAddr,
        bytes: u64,
    ) -> Result<(), StaleHandle> {
        self.lock(vcpu).wrote(memory, address, bytes)
    }

    /// Gives up what shadows the guest table at `address`, so that `vcpu` can write it.
    ///
    /// # Errors
    /// [`StaleHandle`]: a defect of the MMU.
    pub fn unshadow(&self, vcpu: u32, address: GuestPhysAddr) -> Result<(), StaleHandle> {
        let mut mmu = self.lock(vcpu);
        mmu.unshadow(Gfn::of(address))?;
        mmu.flush();
        Ok(())
    }

    /// Says that `vcpu` is about to enter the guest. True if it has to drop all translations
    /// first.
    pub fn enter(&self, vcpu: u32) -> bool {
        self.shootdown.enter(vcpu as usize)
    }

    /// Says that `vcpu` is back.
    pub fn leave(&self, vcpu: u32) {
        self.shootdown.leave(vcpu as usize);
    }

    /// The counters.
    pub fn statistics(&self) -> ShadowStatistics {
        self.mmu.lock().statistics()
    }

    /// Bytes of shadow tables.
    pub fn bytes(&self) -> u64 {
        self.mmu.lock().arena.bytes()
    }
}

/// More tables than that could not be numbered; they would map terabytes.
const MOST_TABLES: usize = 1 << 20;
