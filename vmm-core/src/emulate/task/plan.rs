// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a switch of tasks is going to do: everything that can fault, before anything is written.

use super::INVALID_TSS;
use super::layout::Layout;
use crate::control_registers::load_page_directory_pointers;
use crate::emulate::bus::GuestBus;
use crate::emulate::context::Context;
use crate::emulate::cpu::EmulatorCpu;
use crate::emulate::descriptor::{Descriptor, NOT_PRESENT, Selector};
use crate::emulate::memory::Span;
use crate::emulate::outcome::{Step, Stop};
use crate::emulate::segment::system;
use crate::exit::{TaskSwitch, TaskSwitchSource};
use crate::paging::walk::AccessKind;
use crate::state::{Segment, SegmentRegister, cr0};

/// The page tables that a task brings along: CR3, and the top entries of PAE paging if the CPU keeps
/// them.
pub(super) type PageTables = (u64, Option<[u64; 4]>);

/// A switch of tasks that was checked. All its memory is translated.
pub(super) struct Plan {
    /// An IRET goes back to the task that led to this one.
    pub returns: bool,
    /// The old task waits for the return of the new one.
    pub nests: bool,
    /// Where and how the old task is saved.
    pub saved: (Span, &'static Layout),
    /// The TSS of the new task, and its format.
    pub image: (Span, &'static Layout),
    /// The task register in the new task.
    pub task: Segment,
    /// Where the new task is marked busy, and the old one no longer is.
    pub taken: Option<Span>,
    pub released: Option<Span>,
    /// Where the new task names the old one.
    pub link: Option<Span>,
    /// With paging and a TSS that has CR3.
    pub tables: Option<PageTables>,
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Checks the switch and finds all that it reads and writes. Nothing has changed afterwards.
    pub(super) fn plan_switch(&mut self, switch: TaskSwitch) -> Step<Plan> {
        if !self.mode.protected || self.mode.long {
            return Err(Stop::Unsupported);
        }
        let returns = switch.source == TaskSwitchSource::Return;
        let nests = matches!(switch.source, TaskSwitchSource::Call | TaskSwitchSource::Gate);
        let selector = Selector(switch.selector);
        let descriptor = self.task_descriptor(selector, returns)?;
        let mut task = descriptor.segment(selector);
        let layout = Layout::of(task.attributes.kind());
        task.attributes.set_kind(task.attributes.kind() | system::BUSY);

        let saved = self.saved_task()?;
        let image = self.system_span(task.base, layout.length, AccessKind::Read)?;
        let taken = match returns {
            true => None,
            false => Some(self.descriptor_rights(&descriptor)?),
        };
        let old = Selector(self.cpu.segment(SegmentRegister::Tr).selector);
        let (link, released) = if nests {
            (Some(self.system_span(task.base, 2, AccessKind::Write)?), None)
        } else if taken.is_some() && selector.0 >> 3 == old.0 >> 3 {
            // A jump from a task into itself: what is released first is taken again.
            (None, None)
        } else {
            (None, Some(self.rights_in_gdt(old)?))
        };
        let tables = self.tables_of_task(layout, &image)?;
        let image = (image, layout);
        Ok(Plan { returns, nests, saved, image, task, taken, released, link, tables })
    }

    /// Where the old task is saved.
    fn saved_task(&mut self) -> Step<(Span, &'static Layout)> {
        let old = self.cpu.segment(SegmentRegister::Tr);
        let layout = Layout::of(old.attributes.kind());
        // Nothing is written behind the selectors.
        if u64::from(old.limit) + 1 < layout.ldt {
            return Err(Selector(old.selector).fault(INVALID_TSS).into());
        }
        let at = old.base.wrapping_add(layout.ip);
        Ok((self.system_span(at, layout.saved_length(), AccessKind::Write)?, layout))
    }

    /// The page tables of the task in `image`, checked, if it brings some along.
    fn tables_of_task(&mut self, layout: &Layout, image: &Span) -> Step<Option<PageTables>> {
        match layout.cr3 {
            Some(offset) if self.space.control.cr0 & cr0::PG != 0 => {
                let cr3 = self.read_span(&image.part(offset, 4))?;
                Ok(Some(self.page_tables(cr3)?))
            }
            _ => Ok(None),
        }
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
}
