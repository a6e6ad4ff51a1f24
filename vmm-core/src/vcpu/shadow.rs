// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shadow paging: page faults, invalidations and control registers, as the MMU has to know them.

use iced_x86::Mnemonic;

use super::Vcpu;
use crate::{
    EndReason, Exit, GuestPhysAddr, NestedPageFault,
    backend::VcpuBackend,
    emulate::{self, Outcome},
    paging::{
        shadow::{FaultAction, StaleHandle},
        walk::{Access, AccessKind, AddressSpace, Privilege, page_fault},
    },
    state::{ControlRegisters, Exception, cr0, cr4, efer, rflags},
};

/// How often an instruction may find a table in its way again that was given up for it.
const MOST_RETRIES: u32 = 8;

/// What a vCPU keeps for shadow paging.
#[derive(Default)]
pub(super) struct ShadowState {
    /// Control registers were written that decide about translation.
    pub root_is_old: bool,
    /// Where a table was given up for an instruction that cannot be emulated, and how often in a
    /// row.
    retried: (u64, u32),
}

impl<V: VcpuBackend> Vcpu<V> {
    /// Notes if `new` control registers translate otherwise than `old` ones.
    pub(super) fn note_new_control_registers(
        &mut self,
        old: &ControlRegisters,
        new: &ControlRegisters,
    ) {
        const CR0: u64 = cr0::PG | cr0::WP;
        const CR4: u64 = cr4::PAE | cr4::PSE | cr4::PGE | cr4::SMEP | cr4::SMAP;
        const EFER: u64 = efer::LMA | efer::NXE;
        self.shadow.root_is_old |= (old.cr0 ^ new.cr0) & CR0 != 0
            || (old.cr4 ^ new.cr4) & CR4 != 0
            || (old.efer ^ new.efer) & EFER != 0;
    }

    fn address_space(&self) -> AddressSpace {
        let control = self.hardware.control_registers();
        let kept =
            if control.uses_pae_paging() { self.hardware.page_directory_pointers() } else { None };
        AddressSpace {
            control,
            alignment_check: self.hardware.rflags() & rflags::AC != 0,
            features: self.paging,
            page_directory_pointers: kept,
        }
    }

    /// Before an entry: loads the root that the control registers ask for, if they were written.
    #[inline]
    pub(super) fn renew_shadow_root(&mut self) {
        if self.shadow.root_is_old {
            self.load_shadow_root();
        }
    }

    fn load_shadow_root(&mut self) {
        self.shadow.root_is_old = false;
        let Some(shadow) = self.core.shadow() else { return };
        match shadow.load_root(self.index, &self.core.memory, &self.address_space()) {
            Ok(root) => self.hardware.set_shadow_root(root),
            // The gate stays closed.
            Err(StaleHandle) => self.shadow_paging_failed(StaleHandle::WHY),
        }
    }

    fn shadow_paging_failed(&self, why: &'static str) {
        self.end(EndReason::ShadowPaging { vcpu: self.index, why });
    }

    /// A page fault: the guest's, or one of the shadow tables.
    pub(super) fn page_fault(&mut self, address: u64, error_code: u32) -> Result<(), Exception> {
        if self.core.shadow().is_none() {
            return Err(Exception::page_fault(address, error_code));
        }
        self.forget_older_event();
        let Some(shadow) = self.core.shadow() else { return Ok(()) };
        let access = self.access_of(error_code);
        let space = self.address_space();
        match shadow.fault(self.index, &self.core.memory, &space, address, access) {
            Ok((action, root)) => {
                self.hardware.set_shadow_root(root);
                self.act_on_fault(action, address, access)
            }
            Err(StaleHandle) => {
                self.shadow_paging_failed(StaleHandle::WHY);
                Ok(())
            }
        }
    }

    /// Drops an event that was delivered long ago, if the instruction at RIP is a software
    /// interrupt: its delivery was interrupted, and it is executed again.
    pub(super) fn forget_older_event(&mut self) {
        if self.pending.interrupted.is_none() || !self.hardware.may_have_interrupted_software() {
            return;
        }
        let (mut cpu, mut bus) = self.views();
        let Ok(instruction) = emulate::decode(&mut cpu, &mut bus) else { return };
        let mnemonic = instruction.mnemonic();
        if matches!(mnemonic, Mnemonic::Int | Mnemonic::Int1 | Mnemonic::Int3 | Mnemonic::Into) {
            self.pending.interrupted = None;
        }
    }

    /// The access that a page fault's error code tells of. EFER.NXE is always set while the guest
    /// runs, so that fetches show.
    fn access_of(&self, error_code: u32) -> Access {
        let has = |bit: u32| error_code & bit != 0;
        let kind = match () {
            () if has(page_fault::WRITE) => AccessKind::Write,
            () if has(page_fault::FETCH) => AccessKind::Fetch,
            () => AccessKind::Read,
        };
        let privilege = match (has(page_fault::USER), self.hardware.cpl()) {
            (true, _) => Privilege::User,
            (false, 3) => Privilege::ImplicitSupervisor,
            (false, _) => Privilege::Supervisor,
        };
        Access { kind, privilege }
    }

    fn act_on_fault(
        &mut self,
        action: FaultAction,
        address: u64,
        access: Access,
    ) -> Result<(), Exception> {
        match action {
            // An event whose delivery met the fault is delivered again.
            FaultAction::Resume => Ok(()),
            FaultAction::Forward(code) => Err(Exception::page_fault(address, code)),
            FaultAction::Device(at) => self.nested_page_fault(NestedPageFault {
                address: at,
                is_write: access.kind == AccessKind::Write,
                is_fetch: access.kind == AccessKind::Fetch,
                in_page_walk: false,
            }),
            FaultAction::TableWrite(table) => self.table_write(table),
            FaultAction::Emulate if self.pending.interrupted.is_some() => {
                // Through tables where there is no memory no event can be delivered.
                self.handle(Exit::Shutdown)
            }
            FaultAction::Emulate => self.emulate(),
            FaultAction::NoRoom => {
                self.shadow_paging_failed("the budget holds too few tables");
                Ok(())
            }
            FaultAction::UnsupportedMode => self.conclude(Outcome::UnsupportedPaging),
        }
    }

    /// A write to a table of the guest is emulated. What cannot be, the CPU does itself, after
    /// what shadows the table was given up.
    fn table_write(&mut self, table: GuestPhysAddr) -> Result<(), Exception> {
        if self.pending.interrupted.is_none() {
            match self.try_to_emulate() {
                Outcome::Unsupported(_) | Outcome::BusError { .. } => {}
                outcome => return self.conclude(outcome),
            }
        }
        let rip = self.hardware.rip();
        let (at, times) = self.shadow.retried;
        let times = if at == rip { times + 1 } else { 1 };
        self.shadow.retried = (rip, times);
        if times > MOST_RETRIES {
            self.shadow.retried = (0, 0);
            return self.emulate();
        }
        let Some(shadow) = self.core.shadow() else { return Ok(()) };
        if shadow.unshadow(self.index, table) == Err(StaleHandle) {
            self.shadow_paging_failed(StaleHandle::WHY);
        }
        Ok(())
    }

    /// INVLPG; the emulator knows its operand if the hardware does not tell.
    pub(super) fn invalidate_page(&mut self, address: Option<u64>) -> Result<(), Exception> {
        let Some(address) = address else { return self.emulate() };
        match self.core.shadow() {
            Some(shadow) => {
                if shadow.invalidate(self.index, &self.core.memory, address) == Err(StaleHandle) {
                    self.shadow_paging_failed(StaleHandle::WHY);
                }
            }
            None => self.hardware.flush_tlb(),
        }
        self.skip_instruction()
    }
}
