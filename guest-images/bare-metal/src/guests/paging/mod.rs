// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPU's address translation against the VMM's page walker: random table shapes, in 32-bit,
//! PAE and 4-level paging and with every combination of the switches of paging, are walked by
//! both. They must agree on success or error code, on the memory reached, and on the accessed and
//! dirty bits of all tables.
//!
//! What the manuals leave open is left open: an access that faults may mark entries on its way
//! as accessed (Intel SDM vol. 3, 4.8); QEMU does, Bochs does not.
//!
//! Options: `shapes=N` shapes for each mode; `seed=N` others than usual.

mod access;
mod compare;
mod dice;
mod long;
mod protected;
mod shape;
mod tables;

use vmm_core::paging::walk::{AddressSpace, PagingFeatures};
use vmm_core::state::{ControlRegisters, cr0, cr4, efer};

use self::access::{Expected, STEPS, Step};
use self::compare::{Outcomes, Snapshots};
use self::dice::Dice;
use crate::rt::report::Report;
use crate::rt::{cpu, start_info};

const SHAPES: u64 = 400;

/// Paging mode; also the format of the entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// 32-bit paging.
    Legacy,
    Pae,
    /// 4-level paging.
    Long,
}

impl Mode {
    fn entry_size(self) -> usize {
        if self == Self::Legacy { 4 } else { 8 }
    }

    fn levels(self) -> usize {
        match self {
            Self::Legacy => 2,
            Self::Pae => 3,
            Self::Long => 4,
        }
    }
}

/// What the CPU has, and what it does in its own way.
#[derive(Clone, Copy, Debug)]
struct Model {
    features: PagingFeatures,
    /// Bits of CR4 of concern that may be set.
    cr4: u64,
    /// The top entries of PAE paging are loaded, and checked, with CR3.
    keeps_pointers: bool,
    /// The CPU says that it is AMD's, but does not check bit 8 of table entries, which AMD's
    /// reserve: QEMU 7.2 and Bochs 2.7. A VMM that follows the manual then sees faults where they
    /// see none, so no entry has the bit.
    ignores_table_global: bool,
    /// Quirks of QEMU 7.2's TCG: a fault by reserved bits lacks the present bit in its error
    /// code, unless a VMM raises it; in the top entries of PAE paging bits 1, 2 and 5 to 8 are
    /// not reserved, and walks set bit 5.
    tcg: bool,
}

/// How many times as many shapes are tried if an error code does not come.
const MAX_MORE: u64 = 4;

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    let number = |name: &str, default| {
        let value = start_info::words().find_map(|word| word.strip_prefix(name));
        value.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (shapes, seed) = (number("shapes=", SHAPES), number("seed=", 1));
    tables::map_low(access::user_page());
    tables::fill();
    protected::prepare();
    let model = model();
    println!("{model:?}");
    for mode in [Mode::Long, Mode::Pae, Mode::Legacy] {
        tables::clear(mode);
        let mut outcomes = Outcomes::default();
        let mut dice = Dice::new(seed);
        // What a shape gives also depends on where the guest was linked to, so that a rare error
        // code may need some more.
        let enough = |number, outcomes: &Outcomes| {
            number >= shapes && outcomes.missing_codes(mode, &model) == 0
                || number >= shapes.saturating_mul(MAX_MORE)
        };
        let mut number = 0;
        while !enough(number, &outcomes) {
            one_shape(&model, mode, &mut dice, &mut outcomes, number);
            number += 1;
        }
        outcomes.report(&mut report, mode, &model);
    }
    report.finish()
}

fn model() -> Model {
    let (extended, widths) = (cpu::cpuid(0x8000_0001, 0), cpu::cpuid(0x8000_0008, 0));
    let structured = if cpu::cpuid(0, 0)[0] >= 7 { cpu::cpuid(7, 0)[1] } else { 0 };
    let has =
        |register: u32, bit: u32, value: u64| if register >> bit & 1 == 1 { value } else { 0 };
    let amd = cpu::cpuid(0, 0)[3] == u32::from_le_bytes(*b"enti");
    Model {
        features: PagingFeatures {
            physical_address_bits: widths[0] as u8,
            gigabyte_pages: extended[3] >> 26 & 1 == 1,
            table_global_reserved: amd,
        },
        cr4: cr4::PSE | cr4::PGE | has(structured, 7, cr4::SMEP) | has(structured, 20, cr4::SMAP),
        keeps_pointers: protected::keeps_pointers(),
        ignores_table_global: amd && long::ignores_table_global(),
        tcg: start_info::is_tcg_cpu(),
    }
}

/// Control registers for a shape; CR3 leads to its top table.
fn space(dice: &mut Dice, mode: Mode, model: &Model) -> AddressSpace {
    let mut on = |value: u64| if dice.one_in(2) { value } else { 0 };
    let fixed = match mode {
        Mode::Legacy => (0, 0),
        Mode::Pae => (cr4::PAE, 0),
        Mode::Long => (cr4::PAE, efer::LME | efer::LMA),
    };
    let wanted = on(cr4::PSE) | on(cr4::PGE) | on(cr4::SMEP) | on(cr4::SMAP);
    let control = ControlRegisters {
        cr0: cr0::PE | cr0::ET | cr0::NE | cr0::PG | on(cr0::WP),
        cr2: 0,
        cr3: tables::address(0),
        cr4: fixed.0 | wanted & model.cr4,
        efer: fixed.1 | on(efer::NXE),
    };
    let features = model.features;
    AddressSpace { control, alignment_check: false, features, page_directory_pointers: None }
}

/// Builds a shape, predicts a number of accesses, makes them, and compares.
fn one_shape(model: &Model, mode: Mode, dice: &mut Dice, outcomes: &mut Outcomes, number: u64) {
    let mut space = space(dice, mode, model);
    shape::build(dice, mode, model);
    let mut snapshots = Snapshots::new(mode);
    let mut steps = [Step::default(); STEPS];
    let mut expected = [Expected::Done(None); STEPS];
    for (index, (step, expected)) in steps.iter_mut().zip(&mut expected).enumerate() {
        (*step, *expected) = access::draw(dice, mode, model, &mut space);
        snapshots.keep_predicted(index);
    }
    match mode {
        Mode::Long => long::run(&space.control, &mut steps, &mut snapshots),
        Mode::Pae | Mode::Legacy => protected::run(&space.control, &mut steps, &mut snapshots),
    }
    outcomes.shape(model, &space, (mode, number), &steps, &expected, &snapshots);
}
