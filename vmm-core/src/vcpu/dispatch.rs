// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a neutral exit to what is done about it.

use super::{Vcpu, activity::Activity};
use crate::{
    BriefExit, EndReason, Exit, Trapped,
    backend::VcpuBackend,
    cpuid::{CpuidResult, DynamicCpuid, XSAVE_LEAF},
    memory::text,
    msr::GeneralProtection,
    state::Exception,
    state::Gpr,
    statistics::Unclaimed,
};

/// What an unknown hypercall returns, by the convention of the KVM interface that the guest
/// sees: −1000, "no such call".
const NO_SUCH_HYPERCALL: u64 = (-1000_i64) as u64;

/// What a hypercall from user mode returns, by the same convention: −1, "not permitted".
const HYPERCALL_NOT_PERMITTED: u64 = (-1_i64) as u64;

impl<V: VcpuBackend> Vcpu<V> {
    /// Deals with a brief exit of this `kind`. False, and nothing was done, if there is more to it.
    ///
    /// Clears the note that what was prepared for the last entry holds for the next if it does not.
    #[inline(always)]
    pub(super) fn handle_brief(&mut self, kind: BriefExit, exit: &Exit) -> bool {
        let handled = match (kind, exit) {
            (BriefExit::Mmio, Exit::NestedPageFault(fault)) => {
                let Some(handled) = self.brief_access(*fault) else {
                    return false;
                };
                self.follow_timers();
                handled
            }
            _ => match self.answer(kind, exit) {
                Ok(()) => self.skip_exited(),
                Err(exception) => Err(exception.into()),
            },
        };
        if let Err(exception) = handled {
            self.settled = false;
            self.pending.raise(exception);
        }
        true
    }

    /// Executes the instruction of an exit of this `kind`, without going on behind it.
    #[inline(always)]
    fn answer(&mut self, kind: BriefExit, exit: &Exit) -> Result<(), GeneralProtection> {
        match kind {
            BriefExit::Cpuid => self.cpuid(),
            BriefExit::Hypercall => self.hypercall(),
            BriefExit::PortIo => {
                if let Exit::PortIo(io) = exit {
                    self.port_io(*io);
                    self.follow_timers();
                }
            }
            BriefExit::ReadMsr => return self.read_msr(),
            BriefExit::WriteMsr => return self.write_msr(),
            BriefExit::Mmio => {}
        }
        Ok(())
    }

    /// Executes that instruction, which may be one that the emulator handed back, and goes on behind
    /// it.
    fn complete(&mut self, kind: BriefExit, exit: &Exit) -> Result<(), Exception> {
        self.answer(kind, exit)?;
        self.skip_instruction()
    }

    /// Devices tell what comes of an access by their doorbell, but for a timer that is switched
    /// off.
    #[inline]
    fn follow_timers(&mut self) {
        self.settled &= !self.core.timers.have_changed();
    }

    /// Deals with one exit. An error is an exception for the guest.
    pub(super) fn handle(&mut self, exit: Exit) -> Result<(), Exception> {
        match exit {
            Exit::NotEntered
            | Exit::InterruptWindow
            | Exit::NmiWindow
            | Exit::TaskPriority
            | Exit::Deadline => Ok(()),
            Exit::HostInterrupt => {
                self.notify_host_event_clients();
                Ok(())
            }
            Exit::PortIo(io) if io.is_string => self.string_io(),
            Exit::Cpuid => self.complete(BriefExit::Cpuid, &exit),
            Exit::Hypercall => self.complete(BriefExit::Hypercall, &exit),
            Exit::PortIo(_) => self.complete(BriefExit::PortIo, &exit),
            Exit::ReadMsr => self.complete(BriefExit::ReadMsr, &exit),
            Exit::WriteMsr => self.complete(BriefExit::WriteMsr, &exit),
            Exit::Halt => self.halt(),
            Exit::Pause => self.skip_instruction(),
            Exit::ControlRegister(access) => self.control_register(access),
            Exit::TaskSwitch(switch) => self.switch_task(switch),
            Exit::SetExtendedControl => self.set_extended_control(),
            Exit::NestedPageFault(fault) => self.nested_page_fault(fault),
            Exit::ApicAccess(access) => self.apic_access(access),
            Exit::ApicWrite(offset) => {
                self.apic_written(offset);
                Ok(())
            }
            Exit::EndOfInterrupt(vector) => {
                self.apic.interrupt_ended(vector);
                Ok(())
            }
            Exit::PageFault { address, error_code } => self.page_fault(address, error_code),
            Exit::InvalidatePage { address } => self.invalidate_page(address),
            Exit::Exception(exception) => Err(exception),
            Exit::Instruction(trapped) => self.trapped(trapped),
            Exit::MachineCheck
            | Exit::Shutdown
            | Exit::EntryFailure(_)
            | Exit::NestedMisconfiguration(_)
            | Exit::Unknown(_) => {
                self.end_by(exit);
                Ok(())
            }
        }
    }

    fn end_by(&mut self, exit: Exit) {
        let vcpu = self.index;
        if exit == Exit::MachineCheck {
            // The host goes on, so that it is over for the CPU, too.
            self.hardware.end_machine_check();
        }
        self.end(match exit {
            Exit::MachineCheck => EndReason::MachineCheck { vcpu },
            Exit::EntryFailure(why) => {
                EndReason::EntryFailure { vcpu, why: text(format_args!("{why}")) }
            }
            Exit::NestedMisconfiguration(address) => {
                EndReason::NestedMisconfiguration { vcpu, address }
            }
            Exit::Unknown(code) => EndReason::UnknownExit { vcpu, code },
            _ => EndReason::TripleFault { vcpu, rip: self.hardware.rip() },
        });
    }

    fn trapped(&mut self, trapped: Trapped) -> Result<(), Exception> {
        match trapped {
            Trapped::CacheFlush => {
                self.require_privilege()?;
                self.skip_instruction()
            }
            Trapped::ReadPerformanceCounter => Err(Exception::GENERAL_PROTECTION),
            Trapped::LegacyFpuError => Err(Exception::FLOATING_POINT),
            Trapped::Virtualization | Trapped::MonitorWait | Trapped::Hidden | Trapped::Resume => {
                Err(Exception::INVALID_OPCODE)
            }
        }
    }

    pub(super) fn cannot_emulate(&self, what: &str) -> Result<(), Exception> {
        let (vcpu, rip) = (self.index, self.hardware.rip());
        self.end(EndReason::EmulationFailure { vcpu, rip, why: text(format_args!("{what}")) });
        Ok(())
    }

    /// A function of its own: as a part of the loop it would be short of registers.
    #[inline(never)]
    fn cpuid(&mut self) {
        let leaf = self.hardware.gpr(Gpr::Rax) as u32;
        let subleaf = self.hardware.gpr(Gpr::Rcx) as u32;
        let dynamic = self.dynamic_cpuid();
        match self.core.cpuid.query_common(leaf, subleaf, &dynamic) {
            Some(result) if !self.core.hooks.has_cpuid() => self.set_cpuid(result),
            _ => self.seldom_cpuid(leaf, subleaf),
        }
    }

    /// The same for all leaves, and with hooks.
    #[cold]
    fn seldom_cpuid(&mut self, leaf: u32, subleaf: u32) {
        let xcr0 = if leaf == XSAVE_LEAF { self.hardware.xcr0() } else { 0 };
        let dynamic = DynamicCpuid { xcr0, ..self.dynamic_cpuid() };
        let mut result = self.core.cpuid.query(leaf, subleaf, &dynamic);
        if let Some(hook) = self.core.hooks.cpuid(leaf) {
            result = hook.cpuid(self.index, leaf, subleaf, result);
        }
        self.set_cpuid(result);
    }

    /// What an answer depends on, but for XCR0.
    #[inline(always)]
    fn dynamic_cpuid(&self) -> DynamicCpuid {
        DynamicCpuid {
            cr4: self.hardware.cr4(),
            xcr0: 0,
            apic_id: self.apic.id(),
            apic_enabled: self.apic.is_enabled(),
        }
    }

    #[inline(always)]
    fn set_cpuid(&mut self, result: CpuidResult) {
        for (register, value) in [
            (Gpr::Rax, result.eax),
            (Gpr::Rbx, result.ebx),
            (Gpr::Rcx, result.ecx),
            (Gpr::Rdx, result.edx),
        ] {
            self.hardware.set_gpr(register, value.into());
        }
    }

    fn halt(&mut self) -> Result<(), Exception> {
        self.skip_instruction()?;
        self.activity = Activity::Halted;
        Ok(())
    }

    /// The number is in EAX, arguments in RBX, RCX, RDX and RSI, the result goes to RAX.
    /// The hardware lets user mode call, too; hooks serve the guest's kernel alone.
    #[inline]
    fn hypercall(&mut self) {
        let gpr = |register| self.hardware.gpr(register);
        let arguments = [gpr(Gpr::Rbx), gpr(Gpr::Rcx), gpr(Gpr::Rdx), gpr(Gpr::Rsi)];
        let result = match self.core.hooks.hypercall(gpr(Gpr::Rax) as u32) {
            _ if self.hardware.cpl() != 0 => HYPERCALL_NOT_PERMITTED,
            Some(hook) => hook.hypercall(self.index, arguments),
            None => {
                self.statistics.count_unclaimed(Unclaimed::Hypercall);
                NO_SUCH_HYPERCALL
            }
        };
        self.hardware.set_gpr(Gpr::Rax, result);
    }

    /// Raises #GP in user mode.
    pub(super) fn require_privilege(&self) -> Result<(), Exception> {
        match self.hardware.cpl() {
            0 => Ok(()),
            _ => Err(Exception::GENERAL_PROTECTION),
        }
    }
}
