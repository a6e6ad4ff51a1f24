// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page walker must agree with the reference on every shape.

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError, TestRng, TestRunner};

use super::agreement;
use super::dice::Dice;
use super::shape::{self, Shape};
use crate::paging::walk::rules::{Architecture, Rules};

/// Shapes that are tried.
const CASES: u32 = 6_000;

/// Shapes, drawn by a seed alone so that drawing one is cheap.
fn shape() -> impl Strategy<Value = Shape> {
    any::<u64>().prop_map(|seed| shape::draw(&mut Dice::new(seed)))
}

/// A walker that follows the rules `R` agrees with the reference on one shape.
pub fn agrees<R: Rules>(shape: Shape) -> Result<(), TestCaseError> {
    agreement::agrees::<R>(shape).map_err(TestCaseError::fail)
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

#[test]
fn a_probe_finds_nothing_else_than_a_translation() {
    if let Some(error) =
        first_failure(|shape| agreement::probe_agrees(shape).map_err(TestCaseError::fail))
    {
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
