// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the old task to the new one, whose segments are loaded afterwards.

use super::layout::{Layout, SEGMENTS, TaskState};
use super::{Arrival, INVALID_TSS};
use crate::control_registers::load_page_directory_pointers;
use crate::emulate::bus::GuestBus;
use crate::emulate::context::Context;
use crate::emulate::cpu::EmulatorCpu;
use crate::emulate::descriptor::{Descriptor, NOT_PRESENT, Selector};
use crate::emulate::flags::FlagUpdate;
use crate::emulate::memory::Change;
use crate::emulate::outcome::{Step, Stop};
use crate::emulate::segment::{kind, system};
use crate::exit::{TaskSwitch, TaskSwitchSource};
use crate::paging::walk::AccessKind;
use crate::state::rflags::NT;
use crate::state::{Segment, SegmentAttributes, SegmentRegister, cr0, dr7, efer};

/// The page tables that a task brings along: CR3, and the top entries of PAE paging if the CPU keeps
/// them.
type PageTables = (u64, Option<[u64; 4]>);

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Leaves the old task. If this fails, nothing has changed.
    pub(super) fn leave_task(&mut self, switch: TaskSwitch, return_to: u64) -> Step<Arrival> {
        if !self.mode.protected || self.space.control.efer & efer::LMA != 0 {
            return Err(Stop::Unsupported);
        }
        let returns = switch.source == TaskSwitchSource::Return;
        // The old task waits for the return of the new one.
        let nests = matches!(switch.source, TaskSwitchSource::Call | TaskSwitchSource::Gate);
        let selector = Selector(switch.selector);
        let descriptor = self.task_descriptor(selector, returns)?;
        let mut task = descriptor.segment(selector);
        let layout = Layout::of(task.attributes.kind());
        task.attributes.set_kind(task.attributes.kind() | system::BUSY);
        let old = self.cpu.segment(SegmentRegister::Tr);
        let old_selector = Selector(old.selector);
        let old_layout = Layout::of(old.attributes.kind());
        // Nothing is written behind the selectors.
        if u64::from(old.limit) + 1 < old_layout.ldt {
            return Err(old_selector.fault(INVALID_TSS).into());
        }

        let saved_at = old.base.wrapping_add(old_layout.ip);
        let saved = self.system_span(saved_at, old_layout.saved_length(), AccessKind::Write)?;
        let image = self.system_span(task.base, layout.length, AccessKind::Read)?;
        let taken = match returns {
            true => None,
            false => Some(self.descriptor_rights(&descriptor)?),
        };
        let (link, released) = if nests {
            (Some(self.system_span(task.base, 2, AccessKind::Write)?), None)
        } else if taken.is_some() && selector.0 >> 3 == old_selector.0 >> 3 {
            // A jump from a task into itself: what is released first is taken again.
            (None, None)
        } else {
            (None, Some(self.rights_in_gdt(old_selector)?))
        };
        let tables = match layout.cr3 {
            Some(offset) if self.space.control.cr0 & cr0::PG != 0 => {
                let cr3 = self.read_span(&image.part(offset, 4))?;
                Some(self.page_tables(cr3)?)
            }
            _ => None,
        };

        // Nothing below faults. The first step is the one that another CPU may be in the way of.
        if let Some(rights) = taken {
            let busy = |rights| Change {
                value: rights | u64::from(system::BUSY),
                flags: FlagUpdate::NONE,
            };
            self.update_span(&rights, true, busy)?;
        }
        if let Some(rights) = released {
            // Of a busy TSS its task alone may change the descriptor.
            let value = self.read_span(&rights)? & !u64::from(system::BUSY);
            self.write_span(&rights, value)?;
        }
        let flags = if returns { self.flags & !NT } else { self.flags };
        self.save_task(old_layout, &saved, return_to, flags)?;
        if let Some(link) = link {
            self.write_span(&link, old.selector.into())?;
        }
        let mut state = self.read_task(layout, &image)?;
        if nests {
            state.flags |= NT;
        }
        if returns {
            self.cpu.end_nmi_blocking();
        }
        self.cpu.set_segment(SegmentRegister::Tr, task);
        self.enter_task(&state, tables);
        Ok(Arrival { state, size: layout.size })
    }

    /// The descriptor of the TSS to go to, checked: an IRET finds it busy, all others do not.
    fn task_descriptor(&mut self, selector: Selector, returns: bool) -> Step<Descriptor> {
        let invalid = selector.fault(INVALID_TSS);
        let unfit = if returns { invalid } else { selector.general_protection() };
        if selector.is_null() || selector.is_local() {
            return Err(unfit.into());
        }
        let descriptor = self.descriptor_or(selector, unfit)?;
        let attributes = descriptor.attributes();
        let is_busy = attributes.kind() & system::BUSY != 0;
        let is_tss = !attributes.code_or_data() && system::is_tss(attributes.kind());
        if !is_tss || is_busy != returns {
            return Err(unfit.into());
        }
        if !attributes.present() {
            return Err(selector.fault(NOT_PRESENT).into());
        }
        if u64::from(descriptor.limit()) + 1 < Layout::of(attributes.kind()).length {
            return Err(invalid.into());
        }
        Ok(descriptor)
    }

    /// Checks the page tables of a task whose CR3 has this value.
    fn page_tables(&mut self, cr3: u64) -> Step<PageTables> {
        if self.space.page_directory_pointers.is_none() {
            return Ok((cr3, None));
        }
        let width = self.space.features.physical_address_bits;
        Ok((cr3, Some(load_page_directory_pointers(&*self.bus, cr3, width)?)))
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
