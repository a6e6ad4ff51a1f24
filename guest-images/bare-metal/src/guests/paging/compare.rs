// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prediction and CPU side by side.

use vmm_core::paging::walk::{AddressSpace, page_fault};
use vmm_core::state::cr4;

use super::access::{Expected, LOAD_FAULT, STEPS, Step};
use super::tables::{self, COUNT, MAX_WATCHED};
use super::{Mode, Model, shape};
use crate::rt::report::Report;
use crate::rt::trap::{DONE, GP, PF};

const ACCESSED: u32 = 1 << 5;

type Snapshot = [u32; MAX_WATCHED];

/// The tables after each access. All entries in use are watched, in units of four bytes.
pub struct Snapshots {
    /// Addresses.
    pub watched: [u32; MAX_WATCHED],
    pub count: usize,
    predicted: [Snapshot; STEPS],
    /// What the CPU left.
    pub found: [Snapshot; STEPS],
}

impl Snapshots {
    pub fn new(mode: Mode) -> Self {
        let none = [0; MAX_WATCHED];
        let (predicted, found) = ([none; STEPS], [none; STEPS]);
        let mut snapshots = Self { watched: none, count: 0, predicted, found };
        for (table, slot) in shape::used(mode) {
            let entry = tables::address(table) as usize + slot * mode.entry_size();
            for part in (0..mode.entry_size()).step_by(4) {
                if let Some(place) = snapshots.watched.get_mut(snapshots.count) {
                    *place = (entry + part) as u32;
                    snapshots.count += 1;
                }
            }
        }
        snapshots
    }

    /// Keeps what the walker left after an access.
    pub fn keep_predicted(&mut self, step: usize) {
        let Some(predicted) = self.predicted.get_mut(step) else { return };
        for (value, &address) in predicted.iter_mut().zip(&self.watched).take(self.count) {
            *value = tables::model(u64::from(address) - tables::address(0));
        }
    }

    /// Keeps what the CPU left after an access.
    pub fn keep_found(&mut self, step: usize) {
        let Some(found) = self.found.get_mut(step) else { return };
        for (value, &address) in found.iter_mut().zip(&self.watched).take(self.count) {
            // SAFETY: a part of an entry, mapped where it is.
            *value = unsafe { (address as *const u32).read_volatile() };
        }
    }
}

/// What came of all shapes of a mode.
#[derive(Default)]
pub struct Outcomes {
    shapes: u64,
    accesses: u64,
    different: u64,
    succeeded: u64,
    refused_loads: u64,
    non_canonical: u64,
    /// A bit for each error code of #PF.
    codes: u32,
}

impl Outcomes {
    /// Compares the accesses of one shape.
    pub fn shape(
        &mut self,
        model: &Model,
        space: &AddressSpace,
        (mode, number): (Mode, u64),
        steps: &[Step; STEPS],
        expected: &[Expected; STEPS],
        snapshots: &Snapshots,
    ) {
        self.shapes += 1;
        let mut extra = Extra::new(mode, model, snapshots);
        let tables = snapshots.predicted.iter().zip(&snapshots.found);
        for (index, ((step, expected), (predicted, found))) in
            steps.iter().zip(expected).zip(tables).enumerate()
        {
            self.count(*expected);
            let outcome = is_expected(model, step, *expected);
            let marks = extra.explains(predicted, found, *expected);
            if outcome && marks.is_none() {
                continue;
            }
            self.different += 1;
            if self.different <= 3 {
                println!("{mode:?} shape {number} access {index}: expected {expected:x?}");
                println!("  got {step:x?} AC {}", step.flags >> 18 & 1);
                println!("  with {:x?}", space.control);
                if let Some(at) = marks {
                    let (predicted, found) = (predicted.get(at), found.get(at));
                    println!("  entry {at}: expected {predicted:x?} found {found:x?}");
                }
                if self.different == 1 {
                    dump(mode, snapshots);
                }
            }
            // The rest of the shape starts from wrong tables.
            break;
        }
    }

    fn count(&mut self, expected: Expected) {
        self.accesses += 1;
        match expected {
            Expected::Done(_) => self.succeeded += 1,
            Expected::PageFault(code) => self.codes |= 1 << (code & 31),
            Expected::NonCanonical => self.non_canonical += 1,
            Expected::LoadFault => self.refused_loads += 1,
        }
    }

    pub fn report(&self, report: &mut Report, mode: Mode, model: &Model) {
        println!(
            "{mode:?}: {} shapes, {} accesses, {} succeeded, {} loads of CR3 refused, {} not \
             canonical, error codes {:#x}",
            self.shapes,
            self.accesses,
            self.succeeded,
            self.refused_loads,
            self.non_canonical,
            self.codes
        );
        report.equal(format_args!("{mode:?}: CPU and walker agree"), self.different, 0);
        // A ninth where there are no 1 GiB pages, else more.
        let enough = self.succeeded * 10 > self.accesses;
        report.holds(format_args!("{mode:?}: many accesses succeed"), enough, self.succeeded);
        let missing = self.missing_codes(mode, model);
        report.equal(format_args!("{mode:?}: error codes that never came"), missing, 0);
    }

    /// The error codes of the mode that have not come yet, a bit for each.
    pub fn missing_codes(&self, mode: Mode, model: &Model) -> u32 {
        possible_codes(mode, model) & !self.codes
    }
}

/// Every error code that the mode can give.
fn possible_codes(mode: Mode, model: &Model) -> u32 {
    const ABSENT: u32 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6;
    const PROTECTED: u32 = 1 << 3 | 1 << 5 | 1 << 7;
    const RESERVED: u32 = 1 << 9 | 1 << 0xB | 1 << 0xD | 1 << 0xF;
    const FETCH: u32 = 1 << 0x10 | 1 << 0x11 | 1 << 0x14 | 1 << 0x15 | 1 << 0x19 | 1 << 0x1D;
    let smap = if model.cr4 & cr4::SMAP != 0 { 1 << 1 } else { 0 };
    let reports_fetches = mode != Mode::Legacy || model.cr4 & cr4::SMEP != 0;
    ABSENT | PROTECTED | RESERVED | smap | if reports_fetches { FETCH } else { 0 }
}

/// Whether the access ended as predicted.
fn is_expected(model: &Model, step: &Step, expected: Expected) -> bool {
    let at_instruction = step.trapped_at == step.instruction;
    match expected {
        Expected::Done(value) => {
            // A table read as data may hold accessed bits that an earlier fault left.
            let same = |value: u32| (value ^ step.result) & !ACCESSED == 0;
            u64::from(step.vector) == DONE && value.is_none_or(same)
        }
        Expected::PageFault(code) => {
            let reserved = code & page_fault::RESERVED != 0;
            let open = if reserved && model.tcg { page_fault::PRESENT } else { 0 };
            u64::from(step.vector) == PF
                && (step.error ^ code) & !open == 0
                && step.cr2 == step.address
                && at_instruction
        }
        Expected::NonCanonical => u64::from(step.vector) == GP && step.error == 0 && at_instruction,
        Expected::LoadFault => step.vector == LOAD_FAULT && step.error == 0,
    }
}

/// Accessed bits that the CPU may have set although the access came to nothing.
struct Extra {
    allowed: Snapshot,
}

impl Extra {
    fn new(mode: Mode, model: &Model, snapshots: &Snapshots) -> Self {
        let mut allowed = [0; MAX_WATCHED];
        if mode == Mode::Pae && model.tcg {
            // QEMU marks the top entries.
            for (allowed, &address) in allowed.iter_mut().zip(&snapshots.watched) {
                let offset = u64::from(address).wrapping_sub(tables::address(0));
                *allowed = if offset < 32 && offset % 8 == 0 { ACCESSED } else { 0 };
            }
        }
        Self { allowed }
    }

    /// The first entry, in units of four bytes, that is not as it should be.
    fn explains(
        &mut self,
        predicted: &Snapshot,
        found: &Snapshot,
        expected: Expected,
    ) -> Option<usize> {
        let faulted = matches!(expected, Expected::PageFault(_));
        let values = predicted.iter().zip(found);
        for (index, (allowed, (predicted, found))) in
            self.allowed.iter_mut().zip(values).enumerate()
        {
            if faulted && found & 1 == 1 {
                *allowed |= found & !predicted & ACCESSED;
            }
            if (found ^ predicted) & !(*allowed & found) != 0 {
                return Some(index);
            }
        }
        None
    }
}

/// Prints the tables of a shape as they were after its first access.
fn dump(mode: Mode, snapshots: &Snapshots) {
    let parts = mode.entry_size() / 4;
    let Some(values) = snapshots.predicted.first() else { return };
    let per_table = snapshots.count / COUNT / parts;
    for (index, entry) in values.chunks(parts).take(snapshots.count / parts).enumerate() {
        let address = snapshots.watched.get(index * parts).copied().unwrap_or_default();
        let table = index / per_table.max(1);
        println!("  table {table} entry at {address:#x}: {entry:x?}");
    }
}
