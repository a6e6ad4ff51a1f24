// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port I/O: IN and OUT, and who may use which port.

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::outcome::{Outcome, Step, Stop};
use super::register::GprPart;
use super::segment::system;
use crate::access::AccessWidth;
use crate::paging::walk::{Access, AccessKind, Privilege};
use crate::state::rflags::IOPL;
use crate::state::{Exception, Gpr, SegmentRegister};

/// Offset of the I/O map base in a 32-bit or 64-bit TSS (AMD APM vol. 2, 12.2.4).
const IO_MAP_BASE: u64 = 102;

/// Checks whether the code `cpu` runs may access `size` bytes at `port`, by CPL, IOPL and the
/// I/O permission bitmap of its task (AMD APM vol. 2, 4.9.3 and 12.2.4).
///
/// # Errors
/// The outcome to report, usually #GP(0).
pub fn io_permission(
    cpu: &mut impl EmulatorCpu,
    bus: &mut impl GuestBus,
    port: u16,
    size: AccessWidth,
) -> Result<(), Outcome> {
    let mut context = Context::new(cpu, bus);
    check_permission(&mut context, port, size).map_err(|stop| context.outcome_of(stop))
}

/// As [`io_permission`].
pub(super) fn check_permission<C: EmulatorCpu, B: GuestBus>(
    context: &mut Context<'_, C, B>,
    port: u16,
    size: AccessWidth,
) -> Step<()> {
    let iopl = (context.flags & IOPL) >> IOPL.trailing_zeros();
    let privileged = u64::from(context.cpl) <= iopl && !context.mode.virtual_8086;
    if !context.mode.protected || privileged {
        return Ok(());
    }
    let tss = context.cpu.segment(SegmentRegister::Tr);
    let usable = tss.attributes.present() && !tss.attributes.unusable();
    // A 16-bit TSS has no I/O map. Types 9 and 11: 32-bit or 64-bit, available and busy.
    if !usable || tss.attributes.kind() & !system::BUSY != system::TSS_32 {
        return Err(Exception::GENERAL_PROTECTION.into());
    }
    let limit = u64::from(tss.limit);
    let map = context.tss_word(tss.base, limit, IO_MAP_BASE)?;
    let bits = context.tss_word(tss.base, limit, map + u64::from(port) / 8)?;
    let wanted = ((1 << size.length()) - 1) << (port % 8);
    if bits & wanted != 0 {
        return Err(Exception::GENERAL_PROTECTION.into());
    }
    Ok(())
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Reads 2 bytes of the TSS; #GP(0) beyond its limit.
    fn tss_word(&mut self, base: u64, limit: u64, offset: u64) -> Step<u64> {
        if offset + 1 > limit {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        let low = self.system_byte(base.wrapping_add(offset))?;
        let high = self.system_byte(base.wrapping_add(offset + 1))?;
        Ok(high << 8 | low)
    }

    /// Reads a byte of a system structure.
    fn system_byte(&mut self, linear: u64) -> Step<u64> {
        let access = Access { kind: AccessKind::Read, privilege: Privilege::ImplicitSupervisor };
        let address = self.translate_as(self.mode.system_address(linear), access)?;
        self.bus
            .read(address, AccessWidth::Byte)
            .map(|value| value & 0xFF)
            .map_err(|_| Stop::Bus { address, access: AccessKind::Read })
    }

    /// IN.
    pub fn port_in(&mut self) -> Step<()> {
        let destination = self.register_operand(0)?;
        let port = self.port_operand(1)?;
        check_permission(self, port, destination.size)?;
        let value = self.bus.port_in(port, destination.size);
        self.set_register(destination, u64::from(value));
        Ok(())
    }

    /// OUT.
    pub fn port_out(&mut self) -> Step<()> {
        let source = self.register_operand(1)?;
        let port = self.port_operand(0)?;
        check_permission(self, port, source.size)?;
        let value = self.register(source) as u32;
        self.bus.port_out(port, source.size, value);
        Ok(())
    }

    /// The port number: DX, or an immediate byte, which is never sign-extended.
    fn port_operand(&mut self, operand: u32) -> Step<u16> {
        match self.instruction.try_immediate(operand) {
            Ok(immediate) => Ok(immediate as u16 & 0xFF),
            Err(_) => Ok(self.register(GprPart::new(Gpr::Rdx, AccessWidth::Word)) as u16),
        }
    }
}
