// SPDX-License-Identifier: MIT OR Apache-2.0
//! System instructions. What registers and memory alone decide is done here; the rest is
//! checked and handed to the VMM as the exit that hardware would make of it.

use iced_x86::{Code, Mnemonic, OpKind, Register};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::outcome::{Step, Stop};
use super::register::GprPart;
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::{DescriptorTable, Exception, Gpr, SegmentRegister, cr0, cr4, dr6, dr7, efer};
use crate::{ControlRegisterAccess, Exit, Trapped};

/// Number of a control or debug register, counted from `first`.
fn numbered(register: Register, first: Register) -> Option<u8> {
    let number = (register as u32).checked_sub(first as u32).filter(|number| *number < 16);
    number.map(|number| number as u8)
}

/// Instructions that CPUID hides from every guest that the emulator may execute them for:
/// hardware virtualization of both manufacturers, enclaves and trusted execution, and RDPID, which
/// only CPUs have that execute real mode by themselves.
const HIDDEN: [Mnemonic; 34] = [
    Mnemonic::Vmmcall,
    Mnemonic::Vmrun,
    Mnemonic::Vmload,
    Mnemonic::Vmsave,
    Mnemonic::Stgi,
    Mnemonic::Clgi,
    Mnemonic::Skinit,
    Mnemonic::Invlpga,
    Mnemonic::Vmlaunch,
    Mnemonic::Vmresume,
    Mnemonic::Vmxoff,
    Mnemonic::Vmxon,
    Mnemonic::Vmfunc,
    Mnemonic::Vmread,
    Mnemonic::Vmwrite,
    Mnemonic::Vmclear,
    Mnemonic::Vmptrld,
    Mnemonic::Vmptrst,
    Mnemonic::Invept,
    Mnemonic::Invvpid,
    Mnemonic::Invpcid,
    Mnemonic::Getsec,
    Mnemonic::Encls,
    Mnemonic::Enclu,
    Mnemonic::Enclv,
    Mnemonic::Pconfig,
    Mnemonic::Rdpru,
    Mnemonic::Invlpgb,
    Mnemonic::Tlbsync,
    Mnemonic::Mcommit,
    Mnemonic::Monitorx,
    Mnemonic::Mwaitx,
    Mnemonic::Rdpid,
    Mnemonic::Rdpkru,
];

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// The instructions of this file; `None` if this is none of them.
    pub fn system(&mut self, mnemonic: Mnemonic) -> Option<Step<()>> {
        Some(match mnemonic {
            Mnemonic::Lgdt | Mnemonic::Lidt => self.load_descriptor_table(mnemonic),
            Mnemonic::Sgdt | Mnemonic::Sidt => self.store_descriptor_table(mnemonic),
            Mnemonic::Lldt => self.load_system_segment(SegmentRegister::Ldtr),
            Mnemonic::Ltr => self.load_system_segment(SegmentRegister::Tr),
            Mnemonic::Sldt => self.store_system_selector(SegmentRegister::Ldtr),
            Mnemonic::Str => self.store_system_selector(SegmentRegister::Tr),
            Mnemonic::Verr | Mnemonic::Verw | Mnemonic::Lar | Mnemonic::Lsl => {
                self.inspect_segment(mnemonic)
            }
            Mnemonic::Smsw => self.store_machine_status(),
            Mnemonic::Lmsw => self.load_machine_status(),
            Mnemonic::Rdtsc | Mnemonic::Rdtscp => self.read_time_stamp(mnemonic),
            Mnemonic::Wait => self.wait_for_float(),
            Mnemonic::Invlpg => self.invalidate_page(),
            _ => return self.intercepted(mnemonic).map(Err),
        })
    }

    /// Instructions that are always answered as an exit.
    fn intercepted(&self, mnemonic: Mnemonic) -> Option<Stop> {
        let (exit, privileged) = match mnemonic {
            Mnemonic::Cpuid => (Exit::Cpuid, false),
            Mnemonic::Vmcall => (Exit::Hypercall, false),
            Mnemonic::Xsetbv => (Exit::SetExtendedControl, false),
            Mnemonic::Hlt => (Exit::Halt, true),
            Mnemonic::Rdmsr => (Exit::ReadMsr, true),
            Mnemonic::Wrmsr => (Exit::WriteMsr, true),
            Mnemonic::Clts => {
                (Exit::ControlRegister(ControlRegisterAccess::ClearTaskSwitched), true)
            }
            Mnemonic::Invd | Mnemonic::Wbinvd => (Exit::Instruction(Trapped::CacheFlush), true),
            Mnemonic::Rdpmc => (Exit::Instruction(Trapped::ReadPerformanceCounter), false),
            Mnemonic::Rsm => (Exit::Instruction(Trapped::Resume), false),
            Mnemonic::Monitor | Mnemonic::Mwait => (Exit::Instruction(Trapped::MonitorWait), false),
            _ => return self.absent(mnemonic),
        };
        Some(match self.require_privilege() {
            Err(stop) if privileged => stop,
            _ => Stop::Intercepted(exit),
        })
    }

    /// Instructions that no guest has, or not as it has set itself up: #UD, and #GP for those of
    /// fast system calls outside protected mode.
    fn absent(&self, mnemonic: Mnemonic) -> Option<Stop> {
        let undefined = Stop::from(Exception::INVALID_OPCODE);
        let control = &self.space.control;
        match mnemonic {
            Mnemonic::Syscall | Mnemonic::Sysret if control.efer & efer::SCE == 0 => {
                Some(undefined)
            }
            Mnemonic::Sysenter | Mnemonic::Sysexit if !self.mode.protected => {
                Some(Exception::GENERAL_PROTECTION.into())
            }
            Mnemonic::Xgetbv if control.cr4 & cr4::OSXSAVE == 0 => Some(undefined),
            other => HIDDEN.contains(&other).then_some(undefined),
        }
    }

    /// #GP(0) unless at CPL 0.
    pub fn require_privilege(&self) -> Step<()> {
        if self.cpl == 0 { Ok(()) } else { Err(Exception::GENERAL_PROTECTION.into()) }
    }

    /// #GP(0) above CPL 0 where CR4.UMIP keeps user mode from looking at system registers.
    pub fn require_user_mode_instructions(&self) -> Step<()> {
        match self.space.control.cr4 & cr4::UMIP {
            0 => Ok(()),
            _ => self.require_privilege(),
        }
    }

    /// LGDT and LIDT. With 16-bit operands the base has 24 bits.
    fn load_descriptor_table(&mut self, mnemonic: Mnemonic) -> Step<()> {
        self.require_privilege()?;
        let (length, mask) = match self.instruction.code() {
            Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => (6, 0xFF_FFFF),
            Code::Lgdt_m1632 | Code::Lidt_m1632 => (6, 0xFFFF_FFFF),
            _ => (10, u64::MAX),
        };
        let span = self.operand_span(length, AccessKind::Read)?;
        let value = self.read_wide(&span)?;
        let table = DescriptorTable { limit: value as u16, base: (value >> 16) as u64 & mask };
        self.check_system_base(table.base, Exception::GENERAL_PROTECTION)?;
        let (gdtr, idtr) = self.cpu.descriptor_tables();
        if mnemonic == Mnemonic::Lgdt {
            self.cpu.set_descriptor_tables(table, idtr);
        } else {
            self.cpu.set_descriptor_tables(gdtr, table);
        }
        Ok(())
    }

    /// SGDT and SIDT.
    fn store_descriptor_table(&mut self, mnemonic: Mnemonic) -> Step<()> {
        self.require_user_mode_instructions()?;
        let length = if self.mode.is_64_bit() { 10 } else { 6 };
        let (gdtr, idtr) = self.cpu.descriptor_tables();
        let table = if mnemonic == Mnemonic::Sgdt { gdtr } else { idtr };
        let span = self.operand_span(length, AccessKind::Write)?;
        self.write_wide(&span, u128::from(table.base) << 16 | u128::from(table.limit))
    }

    fn store_machine_status(&mut self) -> Step<()> {
        self.require_user_mode_instructions()?;
        self.write_operand(0, self.space.control.cr0)
    }

    fn load_machine_status(&mut self) -> Step<()> {
        self.require_privilege()?;
        let status = self.read_operand(0)? as u16;
        let access = ControlRegisterAccess::LoadMachineStatus(status);
        Err(Stop::Intercepted(Exit::ControlRegister(access)))
    }

    /// INVLPG: the operand is an address that may be anything.
    fn invalidate_page(&mut self) -> Step<()> {
        self.require_privilege()?;
        let address = Some(self.unchecked_linear()?);
        Err(Stop::Intercepted(Exit::InvalidatePage { address }))
    }

    /// RDTSC and RDTSCP.
    fn read_time_stamp(&mut self, mnemonic: Mnemonic) -> Step<()> {
        let auxiliary = match mnemonic {
            Mnemonic::Rdtscp => {
                Some(self.cpu.time_stamp_auxiliary().ok_or(Exception::INVALID_OPCODE)?)
            }
            _ => None,
        };
        if self.space.control.cr4 & cr4::TSD != 0 {
            self.require_privilege()?;
        }
        let value = self.cpu.time_stamp();
        self.set_register(GprPart::new(Gpr::Rax, AccessWidth::Dword), value);
        self.set_register(GprPart::new(Gpr::Rdx, AccessWidth::Dword), value >> 32);
        if let Some(auxiliary) = auxiliary {
            self.set_register(GprPart::new(Gpr::Rcx, AccessWidth::Dword), auxiliary.into());
        }
        Ok(())
    }

    /// WAIT. Pending x87 errors are not looked for: no x87 instruction was emulated.
    fn wait_for_float(&self) -> Step<()> {
        const SWITCHED: u64 = cr0::MP | cr0::TS;
        if self.space.control.cr0 & SWITCHED == SWITCHED {
            return Err(Exception::DEVICE_NOT_AVAILABLE.into());
        }
        Ok(())
    }

    /// MOV to and from control and debug registers; `None` if this is none of them.
    pub fn move_system_register(&mut self) -> Option<Step<()>> {
        if self.instruction.op1_kind() != OpKind::Register {
            return None;
        }
        let (first, second) = (self.instruction.op0_register(), self.instruction.op1_register());
        if let Some(register) = numbered(first, Register::CR0) {
            return Some(self.control_register_access(register, second, true));
        }
        if let Some(register) = numbered(second, Register::CR0) {
            return Some(self.control_register_access(register, first, false));
        }
        if let Some(register) = numbered(first, Register::DR0) {
            return Some(self.debug_register_access(register, second, true));
        }
        numbered(second, Register::DR0)
            .map(|register| self.debug_register_access(register, first, false))
    }

    fn control_register_access(&self, register: u8, general: Register, writes: bool) -> Step<()> {
        if !matches!(register, 0 | 2 | 3 | 4 | 8) {
            return Err(Exception::INVALID_OPCODE.into());
        }
        self.require_privilege()?;
        let gpr = GprPart::from_decoder(general).ok_or(Stop::Unsupported)?.register;
        let access = if writes {
            ControlRegisterAccess::Write { register, source: Some(gpr) }
        } else {
            ControlRegisterAccess::Read { register, target: Some(gpr) }
        };
        Err(Stop::Intercepted(Exit::ControlRegister(access)))
    }

    /// DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE is set.
    fn debug_register_access(&mut self, register: u8, general: Register, writes: bool) -> Step<()> {
        let extensions = self.space.control.cr4 & cr4::DE != 0;
        let register = match register {
            0..=3 | 6 | 7 => register,
            4 | 5 if !extensions => register + 2,
            _ => return Err(Exception::INVALID_OPCODE.into()),
        };
        self.require_privilege()?;
        let (dr6, dr7) = (self.cpu.debug_register(6), self.cpu.debug_register(7));
        if dr7 & dr7::GENERAL_DETECT != 0 {
            self.cpu.set_debug_register(6, dr6 | dr6::GENERAL_DETECT);
            self.cpu.set_debug_register(7, dr7 & !dr7::GENERAL_DETECT);
            return Err(Exception::DEBUG.into());
        }
        let general = GprPart::from_decoder(general).ok_or(Stop::Unsupported)?;
        if !writes {
            self.set_register(general, self.cpu.debug_register(register));
            return Ok(());
        }
        let value = self.register(general);
        if register > 3 && value >> 32 != 0 {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        let value = match register {
            6 => value & dr6::CAUSES | dr6::FIXED,
            7 => value & dr7::DEFINED | dr7::FIXED,
            _ => value,
        };
        self.cpu.set_debug_register(register, value);
        Ok(())
    }
}
