// SPDX-License-Identifier: MIT OR Apache-2.0
//! The segments of a task, loaded in its own context (Intel SDM vol. 3, table 7-1).

use core::array;

use super::INVALID_TSS;
use super::layout::{SEGMENTS, TaskState};
use crate::emulate::bus::GuestBus;
use crate::emulate::context::Context;
use crate::emulate::cpu::EmulatorCpu;
use crate::emulate::descriptor::{Descriptor, NOT_PRESENT, STACK_FAULT, Selector};
use crate::emulate::outcome::Step;
use crate::emulate::segment::system;
use crate::state::SegmentRegister;

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Loads LDTR and the segment registers; the first that does not fit ends it.
    pub(super) fn load_task_segments(&mut self, state: &TaskState) -> Step<()> {
        if self.mode.virtual_8086 {
            // All selectors fit. With other segments the CPU is not in this mode, and cannot take
            // the exception that LDTR may lead to.
            for (register, selector) in SEGMENTS.into_iter().zip(state.segments) {
                self.commit_segment(self.real_mode_segment(register, selector))?;
            }
            return self.load_task_local_table(Selector(state.ldt));
        }
        self.load_task_local_table(Selector(state.ldt))?;
        let [es, cs, ss, rest @ ..] =
            array::from_fn::<_, 6, _>(|index| (SEGMENTS[index], Selector(state.segments[index])));
        for (register, selector) in [cs, ss, es].into_iter().chain(rest) {
            self.load_task_segment(register, selector)?;
        }
        Ok(())
    }

    fn load_task_local_table(&mut self, selector: Selector) -> Step<()> {
        if selector.is_null() {
            return Ok(());
        }
        let invalid = selector.fault(INVALID_TSS);
        if selector.is_local() {
            return Err(invalid.into());
        }
        let descriptor = self.descriptor_or(selector, selector.fault(INVALID_TSS))?;
        let attributes = descriptor.attributes();
        if attributes.code_or_data() || attributes.kind() != system::LDT || !attributes.present() {
            return Err(invalid.into());
        }
        self.cpu.set_segment(SegmentRegister::Ldtr, descriptor.segment(selector));
        Ok(())
    }

    fn load_task_segment(&mut self, register: SegmentRegister, selector: Selector) -> Step<()> {
        let is_needed = matches!(register, SegmentRegister::Cs | SegmentRegister::Ss);
        if selector.is_null() {
            let invalid = Err(selector.fault(INVALID_TSS).into());
            return if is_needed { invalid } else { Ok(()) };
        }
        let descriptor = self.descriptor_or(selector, selector.fault(INVALID_TSS))?;
        if !self.fits_task(register, selector, &descriptor) {
            return Err(selector.fault(INVALID_TSS).into());
        }
        if !descriptor.attributes().present() {
            let is_stack = register == SegmentRegister::Ss;
            return Err(selector.fault(if is_stack { STACK_FAULT } else { NOT_PRESENT }).into());
        }
        let segment = self.mark_accessed(register, selector, &descriptor)?;
        self.commit_segment(segment)
    }

    /// Type and privilege level of a segment. The level of the task is that of its code selector.
    fn fits_task(
        &self,
        register: SegmentRegister,
        selector: Selector,
        descriptor: &Descriptor,
    ) -> bool {
        let (level, dpl) = (selector.level(), descriptor.attributes().dpl());
        match register {
            SegmentRegister::Cs if descriptor.is_conforming() => dpl <= level,
            SegmentRegister::Cs => descriptor.is_code() && dpl == level,
            SegmentRegister::Ss => descriptor.is_writable() && level == self.cpl && dpl == self.cpl,
            _ => {
                let reachable = descriptor.is_conforming() || level <= dpl && self.cpl <= dpl;
                descriptor.is_readable() && reachable
            }
        }
    }
}
