// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers and XCR0.

use iced_x86::Register;

use super::Vcpu;
use crate::{
    ControlRegisterAccess,
    backend::VcpuBackend,
    control_registers::{
        check_cr0, check_cr3, check_cr4, check_cr8, check_xcr0, load_page_directory_pointers,
    },
    cpuid::Vendor,
    state::{ControlRegisters, Exception, Gpr, SegmentRegister, cr0, cr4, efer},
};

impl<V: VcpuBackend> Vcpu<V> {
    /// An access that exits.
    pub(super) fn control_register(
        &mut self,
        access: ControlRegisterAccess,
    ) -> Result<(), Exception> {
        match access {
            // CLTS, LMSW or SMSW, or a MOV after all.
            ControlRegisterAccess::Write { register: 0, source: None }
            | ControlRegisterAccess::Read { register: 0, target: None } => return self.emulate(),
            ControlRegisterAccess::Write { register, source } => {
                let Some(source) = self.operand(source, 1)? else { return Ok(()) };
                let mask = if self.is_64_bit_code() { u64::MAX } else { u64::from(u32::MAX) };
                let value = self.hardware.gpr(source) & mask;
                self.write_control_register(register, value)?;
            }
            ControlRegisterAccess::Read { register, target } => {
                let Some(target) = self.operand(target, 0)? else { return Ok(()) };
                let value = match register {
                    0 => self.hardware.control_registers().cr0,
                    2 => self.hardware.control_registers().cr2,
                    3 => self.hardware.control_registers().cr3,
                    4 => self.hardware.cr4(),
                    8 => self.apic.cr8(),
                    _ => return Err(Exception::INVALID_OPCODE),
                };
                self.hardware.set_gpr(target, value);
            }
            ControlRegisterAccess::ClearTaskSwitched => {
                let old = self.hardware.control_registers().cr0;
                self.set_cr0(old & !cr0::TS)?;
            }
            ControlRegisterAccess::LoadMachineStatus(status) => {
                let old = self.hardware.control_registers().cr0;
                self.set_cr0(machine_status(old, status))?;
            }
        }
        self.skip_instruction()
    }

    /// The general-purpose register of a MOV: what the hardware told, or else operand `number`
    /// of the instruction.
    fn operand(&mut self, told: Option<Gpr>, number: u32) -> Result<Option<Gpr>, Exception> {
        if told.is_some() {
            return Ok(told);
        }
        let Some(instruction) = self.decode()? else { return Ok(None) };
        let register = general_register(instruction.op_register(number));
        register.map(Some).ok_or(Exception::INVALID_OPCODE)
    }

    fn write_control_register(&mut self, register: u8, value: u64) -> Result<(), Exception> {
        match register {
            0 => self.set_cr0(value),
            2 => {
                let old = self.hardware.control_registers();
                self.hardware.set_control_registers(ControlRegisters { cr2: value, ..old });
                Ok(())
            }
            3 => self.set_cr3(value),
            4 => self.set_cr4(value),
            8 => {
                self.apic.set_cr8(check_cr8(value)?);
                Ok(())
            }
            _ => Err(Exception::INVALID_OPCODE),
        }
    }

    fn set_cr0(&mut self, value: u64) -> Result<(), Exception> {
        let old = self.hardware.control_registers();
        // Also while it means nothing yet.
        let cs_long = self.hardware.segment(SegmentRegister::Cs).attributes.long();
        let change = check_cr0(old.cr0, value, old.cr4, old.efer, cs_long)?;
        if change.efer & !old.efer & efer::LMA != 0 {
            self.check_task_of_long_mode()?;
        }
        let new = ControlRegisters { cr0: change.cr0, efer: change.efer, ..old };
        const RELOADING: u64 = cr0::CD | cr0::NW | cr0::PG;
        self.load_control_registers(new, (old.cr0 ^ new.cr0) & RELOADING != 0)?;
        self.flush_if(change.flush);
        Ok(())
    }

    /// On Intel's CPUs long mode begins with a task register that names no 16-bit TSS (Intel
    /// SDM vol. 2, MOV to control registers).
    fn check_task_of_long_mode(&self) -> Result<(), Exception> {
        const BUSY_TSS_16: u8 = 3;
        let task = self.hardware.segment(SegmentRegister::Tr).attributes.kind();
        let refused = self.core.cpuid.vendor() == Vendor::Intel && task == BUSY_TSS_16;
        if refused { Err(Exception::GENERAL_PROTECTION) } else { Ok(()) }
    }

    fn set_cr3(&mut self, value: u64) -> Result<(), Exception> {
        let old = self.hardware.control_registers();
        let cr3 = check_cr3(value, old.efer, &self.core.cpuid)?;
        self.load_control_registers(ControlRegisters { cr3, ..old }, true)
    }

    fn set_cr4(&mut self, value: u64) -> Result<(), Exception> {
        let old = self.hardware.control_registers();
        let change = check_cr4(old.cr4, value, old.efer, &self.core.cpuid)?;
        let new = ControlRegisters { cr4: change.cr4, ..old };
        const RELOADING: u64 = cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP;
        self.load_control_registers(new, (old.cr4 ^ new.cr4) & RELOADING != 0)?;
        self.flush_if(change.flush);
        Ok(())
    }

    /// Drops cached translations. Shadow tables may be the same as before, but not what the CPU has
    /// found that they permit (Intel SDM vol. 3, 4.10.4.1).
    fn flush_if(&mut self, wanted: bool) {
        if wanted {
            self.hardware.flush_tlb();
        }
    }

    /// Sets control registers, and with PAE paging the page-directory pointers if the change
    /// reloads them (Intel SDM vol. 3, 4.4.1).
    fn load_control_registers(
        &mut self,
        new: ControlRegisters,
        reloads: bool,
    ) -> Result<(), Exception> {
        if V::KEEPS_PAGE_DIRECTORY_POINTERS && new.uses_pae_paging() && reloads {
            let width = self.core.cpuid.physical_address_bits();
            let entries = load_page_directory_pointers(&self.core.memory, new.cr3, width)?;
            self.hardware.set_page_directory_pointers(entries);
        }
        let old = self.hardware.control_registers();
        self.hardware.set_control_registers(new);
        if reloads {
            self.shadow.root_is_old = true;
        } else {
            self.note_new_control_registers(&old, &new);
        }
        Ok(())
    }

    /// XSETBV (AMD APM vol. 4, XSETBV).
    pub(super) fn set_extended_control(&mut self) -> Result<(), Exception> {
        if self.hardware.control_registers().cr4 & cr4::OSXSAVE == 0 {
            return Err(Exception::INVALID_OPCODE);
        }
        self.require_privilege()?;
        if self.hardware.gpr(Gpr::Rcx) as u32 != 0 {
            return Err(Exception::GENERAL_PROTECTION);
        }
        let low = self.hardware.gpr(Gpr::Rax) & 0xFFFF_FFFF;
        let value = self.hardware.gpr(Gpr::Rdx) << 32 | low;
        self.hardware.set_xcr0(check_xcr0(value, self.core.cpuid.supported_xcr0())?);
        self.skip_instruction()
    }
}

/// CR0 after LMSW of `status`: PE, MP, EM and TS are loaded, but PE is not cleared.
const fn machine_status(old: u64, status: u16) -> u64 {
    const LOADED: u64 = cr0::MP | cr0::EM | cr0::TS;
    old & !LOADED | status as u64 & (LOADED | cr0::PE)
}

/// The general-purpose register that a MOV to or from a control register names: 64 bits wide
/// in 64-bit code, else 32.
fn general_register(register: Register) -> Option<Gpr> {
    let from = |first: Register| (register as u32).checked_sub(first as u32).filter(|n| *n < 16);
    let number = from(Register::RAX).or_else(|| from(Register::EAX))?;
    Some(Gpr::from_encoding(number as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lmsw_sets_protection_but_never_clears_it() {
        assert_eq!(machine_status(cr0::ET | cr0::TS, 1), cr0::ET | cr0::PE);
        assert_eq!(machine_status(cr0::PE | cr0::PG, 0xFFF8), cr0::PE | cr0::PG | cr0::TS);
    }

    #[test]
    fn knows_the_operands_of_control_register_moves() {
        assert_eq!(general_register(Register::RAX), Some(Gpr::Rax));
        assert_eq!(general_register(Register::R15), Some(Gpr::R15));
        assert_eq!(general_register(Register::ESP), Some(Gpr::Rsp));
        assert_eq!(general_register(Register::CR4), None);
        assert_eq!(general_register(Register::AX), None);
    }
}
