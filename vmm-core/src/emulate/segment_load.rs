// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading segment registers (Intel SDM vol. 2, MOV, LDS, LLDT and LTR).

use iced_x86::{MemorySize, Mnemonic};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::descriptor::{Descriptor, NOT_PRESENT, STACK_FAULT, Selector};
use super::flags::{FlagUpdate, when};
use super::memory::{Change, Span};
use super::outcome::{Step, Stop};
use super::segment::{kind, system};
use crate::access::AccessWidth;
use crate::paging::walk::AccessKind;
use crate::state::{
    Exception, InterruptShadow, Segment, SegmentAttributes, SegmentRegister, rflags::ZF,
};

/// Limit of the segments of virtual-8086 mode, and of real mode after reset.
const REAL_MODE_LIMIT: u32 = 0xFFFF;

const WRITABLE_DATA: SegmentAttributes =
    SegmentAttributes::new().with_kind(3).with_code_or_data(true).with_present(true);

/// A segment that was checked and only has to be put into its register.
#[derive(Clone, Copy)]
pub(super) struct CheckedSegment {
    register: SegmentRegister,
    pub segment: Segment,
    /// The type byte of its descriptor, and the bits that loading sets there.
    mark: Option<(Span, u8)>,
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Loads ES, SS, DS, FS or GS.
    pub fn load_segment(&mut self, register: SegmentRegister, selector: u16) -> Step<()> {
        let segment = self.checked_segment(register, Selector(selector))?;
        self.commit_segment(segment)?;
        Ok(())
    }

    /// MOV to SS and POP SS keep events off the next instruction.
    pub fn begin_stack_shadow(&mut self, register: SegmentRegister) {
        if register == SegmentRegister::Ss {
            self.shadow = Some(InterruptShadow::MovSs);
            self.debug_trap = false;
        }
    }

    /// Checks what `selector` names for ES, SS, DS, FS or GS.
    pub fn checked_segment(
        &mut self,
        register: SegmentRegister,
        selector: Selector,
    ) -> Step<CheckedSegment> {
        if !self.mode.descriptors {
            return Ok(self.real_mode_segment(register, selector.0));
        }
        if selector.is_null() {
            return self.null_segment(register, selector);
        }
        let descriptor = self.descriptor(selector)?;
        let attributes = descriptor.attributes();
        let (level, dpl) = (selector.level(), attributes.dpl());
        let (fits, absent) = if register == SegmentRegister::Ss {
            let fits = descriptor.is_writable() && level == self.cpl && dpl == self.cpl;
            (fits, STACK_FAULT)
        } else {
            let reachable = descriptor.is_conforming() || level <= dpl && self.cpl <= dpl;
            (descriptor.is_readable() && reachable, NOT_PRESENT)
        };
        if !fits {
            return Err(selector.general_protection().into());
        }
        if !attributes.present() {
            return Err(selector.fault(absent).into());
        }
        self.mark_accessed(register, selector, &descriptor)
    }

    /// Without descriptors the base follows from the selector. In real mode limit and type
    /// stay, in virtual-8086 mode they are fixed (Intel SDM vol. 3, 20.1.1 and 20.2.1).
    pub fn real_mode_segment(&self, register: SegmentRegister, selector: u16) -> CheckedSegment {
        let old = self.cpu.segment(register);
        let fixed = self.mode.virtual_8086;
        let kept = !fixed && !old.attributes.unusable() && old.attributes.code_or_data();
        let (limit, attributes) =
            if kept { (old.limit, old.attributes) } else { (REAL_MODE_LIMIT, WRITABLE_DATA) };
        let dpl = if fixed { 3 } else { 0 };
        let attributes = attributes.with_dpl(dpl).with_present(true);
        let segment = Segment { selector, limit, base: u64::from(selector) << 4, attributes };
        CheckedSegment { register, segment, mark: None }
    }

    /// A null selector makes a register unusable. SS takes one in 64-bit mode only, with the
    /// privilege level of the code, which is not 3 (Intel SDM vol. 2, MOV).
    fn null_segment(&self, register: SegmentRegister, selector: Selector) -> Step<CheckedSegment> {
        let stack = register == SegmentRegister::Ss;
        let allowed = self.mode.is_64_bit() && self.cpl != 3 && selector.level() == self.cpl;
        if stack && !allowed {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        let dpl = if stack { self.cpl } else { 0 };
        let attributes = SegmentAttributes::new().with_unusable(true).with_dpl(dpl);
        let segment = Segment { selector: selector.0, attributes, ..Segment::default() };
        Ok(CheckedSegment { register, segment, mark: None })
    }

    /// The segment of a descriptor that passed its checks; loading it sets its accessed bit.
    pub fn mark_accessed(
        &mut self,
        register: SegmentRegister,
        selector: Selector,
        descriptor: &Descriptor,
    ) -> Step<CheckedSegment> {
        let mut segment = descriptor.segment(selector);
        let kind = segment.attributes.kind();
        let mark = match kind & kind::ACCESSED {
            0 => Some((self.descriptor_rights(descriptor)?, kind::ACCESSED)),
            _ => None,
        };
        segment.attributes.set_kind(kind | kind::ACCESSED);
        Ok(CheckedSegment { register, segment, mark })
    }

    /// Loads a checked segment.
    pub fn commit_segment(&mut self, checked: CheckedSegment) -> Step<()> {
        if let Some((place, bits)) = checked.mark {
            let set = |rights| Change { value: rights | u64::from(bits), flags: FlagUpdate::NONE };
            self.update_span(&place, true, set)?;
        }
        self.cpu.set_segment(checked.register, checked.segment);
        Ok(())
    }

    /// LDS, LES, LSS, LFS, LGS: a far pointer from memory.
    pub fn load_far_pointer(&mut self, mnemonic: Mnemonic) -> Step<()> {
        let register = match mnemonic {
            Mnemonic::Lds => SegmentRegister::Ds,
            Mnemonic::Les => SegmentRegister::Es,
            Mnemonic::Lss => SegmentRegister::Ss,
            Mnemonic::Lfs => SegmentRegister::Fs,
            _ => SegmentRegister::Gs,
        };
        let destination = self.register_operand(0)?;
        let (selector, offset, _) = self.read_far_pointer()?;
        let segment = self.checked_segment(register, Selector(selector))?;
        self.commit_segment(segment)?;
        self.set_register(destination, offset);
        Ok(())
    }

    /// Reads the far pointer that is the memory operand: selector, offset, size of the offset.
    pub fn read_far_pointer(&mut self) -> Step<(u16, u64, AccessWidth)> {
        let size = match self.instruction.memory_size() {
            MemorySize::SegPtr16 => AccessWidth::Word,
            MemorySize::SegPtr32 => AccessWidth::Dword,
            MemorySize::SegPtr64 => AccessWidth::Qword,
            _ => return Err(Stop::Unsupported),
        };
        let span = self.operand_span(size.length() + 2, AccessKind::Read)?;
        let value = self.read_wide(&span)?;
        Ok(((value >> size.bits()) as u16, value as u64 & size.mask(), size))
    }

    /// LLDT and LTR, of code at CPL 0.
    pub fn load_system_segment(&mut self, register: SegmentRegister) -> Step<()> {
        self.require_descriptors()?;
        self.require_privilege()?;
        let selector = Selector(self.read_operand(0)? as u16);
        let is_task = register == SegmentRegister::Tr;
        if selector.is_null() {
            if is_task {
                return Err(Exception::GENERAL_PROTECTION.into());
            }
            let attributes = SegmentAttributes::new().with_unusable(true);
            let segment = Segment { selector: selector.0, attributes, ..Segment::default() };
            self.cpu.set_segment(register, segment);
            return Ok(());
        }
        if selector.is_local() {
            return Err(selector.general_protection().into());
        }
        let descriptor = self.descriptor(selector)?;
        let attributes = descriptor.attributes();
        let is_long = self.mode.long;
        let fits = match attributes.kind() {
            system::TSS_32 => is_task,
            system::TSS_16 => is_task && !is_long,
            system::LDT => !is_task,
            _ => false,
        };
        if attributes.code_or_data() || !fits {
            return Err(selector.general_protection().into());
        }
        if !attributes.present() {
            return Err(selector.fault(NOT_PRESENT).into());
        }
        let mut segment = descriptor.segment(selector);
        if is_long {
            segment.base |= self.upper_base(selector, &descriptor)?;
            self.check_system_base(segment.base, selector.general_protection())?;
        }
        let mut mark = None;
        if is_task {
            mark = Some((self.descriptor_rights(&descriptor)?, system::BUSY));
            segment.attributes.set_kind(attributes.kind() | system::BUSY);
        }
        self.commit_segment(CheckedSegment { register, segment, mark })
    }

    /// SLDT and STR.
    pub fn store_system_selector(&mut self, register: SegmentRegister) -> Step<()> {
        self.require_descriptors()?;
        self.require_user_mode_instructions()?;
        self.write_operand(0, self.cpu.segment(register).selector.into())
    }

    /// VERR, VERW, LAR and LSL: ZF tells whether the segment can be reached.
    pub fn inspect_segment(&mut self, mnemonic: Mnemonic) -> Step<()> {
        self.require_descriptors()?;
        let verifies = matches!(mnemonic, Mnemonic::Verr | Mnemonic::Verw);
        let selector = Selector(self.read_operand(if verifies { 0 } else { 1 })? as u16);
        let found = self.reachable_descriptor(selector)?.filter(|descriptor| match mnemonic {
            Mnemonic::Verr => descriptor.is_readable(),
            Mnemonic::Verw => descriptor.is_writable(),
            _ if descriptor.attributes().code_or_data() => true,
            Mnemonic::Lsl => has_limit(descriptor, self.mode.long),
            _ => has_rights(descriptor, self.mode.long),
        });
        if let (Some(descriptor), false) = (&found, verifies) {
            let destination = self.register_operand(0)?;
            let value = match mnemonic {
                Mnemonic::Lsl => descriptor.limit().into(),
                _ => descriptor.rights(),
            };
            self.set_register(destination, value);
        }
        self.apply(FlagUpdate::new(ZF, when(found.is_some(), ZF)));
        Ok(())
    }

    /// The descriptor that `selector` names, unless it is beyond its table or more privileged.
    fn reachable_descriptor(&mut self, selector: Selector) -> Step<Option<Descriptor>> {
        if selector.is_null() {
            return Ok(None);
        }
        let Some(descriptor) = self.find_descriptor(selector)? else { return Ok(None) };
        let dpl = descriptor.attributes().dpl();
        let reachable = descriptor.is_conforming() || self.cpl <= dpl && selector.level() <= dpl;
        Ok(reachable.then_some(descriptor))
    }

    /// #UD outside protected mode.
    fn require_descriptors(&self) -> Step<()> {
        if self.mode.descriptors { Ok(()) } else { Err(Exception::INVALID_OPCODE.into()) }
    }
}

/// System descriptors with a limit: LDT and TSS. Long mode has no TSS of 16 bits.
const fn has_limit(descriptor: &Descriptor, long: bool) -> bool {
    let kind = descriptor.attributes().kind();
    kind == system::LDT || system::is_tss(kind) && (!long || kind & system::IS_32_BIT != 0)
}

/// System descriptors that LAR reads: those and call and task gates. Long mode has call gates of
/// one size only (Intel SDM vol. 2, LAR).
const fn has_rights(descriptor: &Descriptor, long: bool) -> bool {
    has_limit(descriptor, long)
        || match descriptor.attributes().kind() {
            system::CALL_GATE => true,
            system::CALL_GATE_16 | system::TASK_GATE => !long,
            _ => false,
        }
}
