// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page walker must agree with the reference on every shape: translation or error code, and
//! what becomes of the tables.

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError, TestRng, TestRunner};

use super::memory::Sparse;
use super::reference::{self, Outcome};
use super::shape::{Shape, shape};
use crate::paging::walk::rules::{Architecture, Rules};
use crate::paging::walk::{
    PhysicalMemory, Quadwords, TranslateError, probe, translate, translate_by,
};
use crate::state::efer;
use crate::{GuestPhysAddr, GuestVirtAddr};

/// Shapes that are tried.
const CASES: u32 = 6_000;

/// A walker that follows the rules `R` agrees with the reference on one shape.
pub fn agrees<R: Rules>(shape: Shape) -> Result<(), TestCaseError> {
    let Shape { memory, mut space, accesses } = shape;
    let expected = memory.clone();
    for (address, access, alignment_check) in accesses {
        space.alignment_check = alignment_check;
        let wanted = reference::walk(&expected, &space, address, access);
        let found = translate_by::<R, _>(&memory, &space, GuestVirtAddr::new(address), access);
        match (wanted, found) {
            (Outcome::Page(wanted), Ok(found)) => {
                let rights = (found.rights.write, found.rights.user, found.rights.execute);
                prop_assert_eq!(found.address.as_u64(), wanted.address);
                prop_assert_eq!(found.page_size.bytes(), wanted.size);
                prop_assert_eq!(rights, wanted.rights);
                prop_assert_eq!((found.dirty, found.global), (wanted.dirty, wanted.global));
                for (at, bytes, marks) in wanted.marks {
                    expected.mark(at, bytes, marks);
                }
            }
            (Outcome::Fault(wanted), Err(TranslateError::PageFault(found))) => {
                prop_assert_eq!(found, wanted, "{:?} of {:#x}", access, address);
            }
            (Outcome::NonCanonical, Err(TranslateError::NonCanonical)) => {}
            (wanted, found) => {
                prop_assert!(false, "{wanted:x?} expected of {address:#x}, got {found:x?}");
            }
        }
        prop_assert_eq!(&memory.cells, &expected.cells);
    }
    Ok(())
}

/// Tries the same shapes each time, and says what the first is that lacks the property.
pub fn first_failure(property: fn(Shape) -> Result<(), TestCaseError>) -> Option<TestError<Shape>> {
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng).run(&shape(), property).err()
}

#[test]
fn agrees_with_the_reference() {
    if let Some(error) = first_failure(agrees::<Architecture>) {
        panic!("{error}");
    }
}

/// Memory for the probe.
struct Whole<'a>(&'a Sparse);

impl Quadwords for Whole<'_> {
    fn quadword(&mut self, address: GuestPhysAddr) -> Option<u64> {
        self.0.read_u64(address).ok()
    }
}

/// Where an access is allowed, looking without checking finds no other place.
fn probe_agrees(shape: Shape) -> Result<(), TestCaseError> {
    let Shape { memory, mut space, accesses } = shape;
    if space.control.efer & efer::LMA == 0 {
        return Ok(());
    }
    for (address, access, alignment_check) in accesses {
        space.alignment_check = alignment_check;
        let address = GuestVirtAddr::new(address);
        if let Ok(found) = translate(&memory, &space, address, access) {
            let probed = probe(&mut Whole(&memory), space.control.cr3, address);
            // Where tables are that are no memory it gives up.
            prop_assert!(probed.is_none_or(|at| at == found.address), "{:?}", probed);
        }
    }
    Ok(())
}

#[test]
fn a_probe_finds_nothing_else_than_a_translation() {
    if let Some(error) = first_failure(probe_agrees) {
        panic!("{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_reference_on_shapes_never_seen(shape in shape()) {
        agrees::<Architecture>(shape)?;
    }
}
