// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers and XCR0.

use iced_x86::Register;

use super::Vcpu;
use crate::{
    ControlRegisterAccess,
    backend::VcpuBackend,
    control_registers::{check_cr4, check_cr8, check_xcr0},
    state::{ControlRegisters, Exception, Gpr, cr4},
};

impl<V: VcpuBackend> Vcpu<V> {
    /// A MOV that exits: only writes to CR4 and CR8 are ever made to.
    pub(super) fn control_register(
        &mut self,
        access: ControlRegisterAccess,
    ) -> Result<(), Exception> {
        let Some(instruction) = self.decode()? else { return Ok(()) };
        let operand = u32::from(access.is_write);
        let register = general_register(instruction.op_register(operand));
        let Some(register) = register else { return Err(Exception::INVALID_OPCODE) };
        let mask = if self.is_64_bit_code() { u64::MAX } else { u64::from(u32::MAX) };
        let value = self.hardware.gpr(register) & mask;
        match (access.register, access.is_write) {
            (4, true) => self.set_cr4(value)?,
            (8, true) => self.apic.set_cr8(check_cr8(value)?),
            (8, false) => self.hardware.set_gpr(register, self.apic.cr8()),
            _ => return Err(Exception::INVALID_OPCODE),
        }
        self.skip_instruction()
    }

    fn set_cr4(&mut self, value: u64) -> Result<(), Exception> {
        let old = self.hardware.control_registers();
        let change = check_cr4(old.cr4, value, old.efer, &self.core.cpuid)?;
        self.hardware.set_control_registers(ControlRegisters { cr4: change.cr4, ..old });
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
    fn knows_the_operands_of_control_register_moves() {
        assert_eq!(general_register(Register::RAX), Some(Gpr::Rax));
        assert_eq!(general_register(Register::R15), Some(Gpr::R15));
        assert_eq!(general_register(Register::ESP), Some(Gpr::Rsp));
        assert_eq!(general_register(Register::CR4), None);
        assert_eq!(general_register(Register::AX), None);
    }
}
