// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the old task to the new one, whose segments are loaded afterwards.

use super::Arrival;
use super::layout::{SEGMENTS, TaskState};
use super::plan::{PageTables, Plan};
use crate::emulate::bus::GuestBus;
use crate::emulate::context::Context;
use crate::emulate::cpu::EmulatorCpu;
use crate::emulate::descriptor::Selector;
use crate::emulate::flags::FlagUpdate;
use crate::emulate::memory::Change;
use crate::emulate::outcome::Step;
use crate::emulate::segment::{kind, system};
use crate::exit::TaskSwitch;
use crate::state::rflags::NT;
use crate::state::{Segment, SegmentAttributes, SegmentRegister, dr7};

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Leaves the old task. If this fails, nothing has changed.
    pub(super) fn leave_task(&mut self, switch: TaskSwitch, return_to: u64) -> Step<Arrival> {
        let plan = self.plan_switch(switch)?;
        self.commit_switch(&plan, return_to)
    }

    /// Does what was planned. Nothing here faults, and only the first step is one that another CPU
    /// may be in the way of: if that fails, nothing has changed.
    fn commit_switch(&mut self, plan: &Plan, return_to: u64) -> Step<Arrival> {
        if let Some(rights) = &plan.taken {
            let busy = |rights| Change {
                value: rights | u64::from(system::BUSY),
                flags: FlagUpdate::NONE,
            };
            self.update_span(rights, true, busy)?;
        }
        if let Some(rights) = &plan.released {
            // Of a busy TSS its task alone may change the descriptor.
            let value = self.read_span(rights)? & !u64::from(system::BUSY);
            self.write_span(rights, value)?;
        }
        let flags = if plan.returns { self.flags & !NT } else { self.flags };
        let (saved, old_layout) = &plan.saved;
        self.save_task(old_layout, saved, return_to, flags)?;
        if let Some(link) = &plan.link {
            let old = self.cpu.segment(SegmentRegister::Tr);
            self.write_span(link, old.selector.into())?;
        }
        let (image, layout) = &plan.image;
        let mut state = self.read_task(layout, image)?;
        if plan.nests {
            state.flags |= NT;
        }
        if plan.returns {
            self.cpu.end_nmi_blocking();
        }
        self.cpu.set_segment(SegmentRegister::Tr, plan.task);
        self.enter_task(&state, plan.tables);
        Ok(Arrival { state, size: layout.size })
    }

    /// Loads the registers of the new task. Its segments have their selectors, but cannot be used
    /// yet; what the CPU needs to know of code and stack at any time follows from the privilege
    /// level.
    fn enter_task(&mut self, state: &TaskState, tables: Option<PageTables>) {
        let cpl = state.cpl();
        self.cpu.set_task_switched();
        if let Some((cr3, pointers)) = tables {
            self.cpu.load_page_tables(cr3, pointers);
        }
        let breakpoints = self.cpu.debug_register(7);
        self.cpu.set_debug_register(7, breakpoints & !dr7::LOCAL);
        self.cpu.set_interrupt_shadow(None);
        self.cpu.set_rflags(state.flags);
        self.cpu.set_rip(state.ip);
        self.load_task_gprs(state);
        let unusable = SegmentAttributes::new().with_unusable(true);
        let readable = kind::CODE | kind::READ_WRITE | kind::ACCESSED;
        let code = SegmentAttributes::new().with_kind(readable).with_code_or_data(true);
        for (register, selector) in SEGMENTS.into_iter().zip(state.segments) {
            let (selector, attributes) = match register {
                SegmentRegister::Cs => (selector, code.with_dpl(cpl).with_present(true)),
                // The fault that a bad stack leads to is delivered with this one, which VT-x takes
                // at no other level than that of the code (Intel SDM vol. 3, 26.3.1.2).
                SegmentRegister::Ss => {
                    (Selector(selector).with_level(cpl).0, unusable.with_dpl(cpl))
                }
                _ => (selector, unusable),
            };
            self.cpu.set_segment(register, Segment { selector, attributes, ..Segment::default() });
        }
        let local = Segment { selector: state.ldt, attributes: unusable, ..Segment::default() };
        self.cpu.set_segment(SegmentRegister::Ldtr, local);
    }
}
