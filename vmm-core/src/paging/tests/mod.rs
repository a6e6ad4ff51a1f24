// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of address translation.

mod agreement;
pub mod dice;
pub(crate) mod memory;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod property;
mod reference;
mod shape;
#[cfg(test)]
mod walk;

use super::walk::rules::Architecture;

/// Walks the tables that `bytes` describe, and compares with the reference.
///
/// # Panics
/// If the walker does not agree with it.
pub fn check_walks(bytes: &[u8]) {
    let shape = shape::draw(&mut dice::Dice::of(bytes));
    for result in [agreement::agrees::<Architecture>(shape.clone()), agreement::probe_agrees(shape)]
    {
        if let Err(difference) = result {
            panic!("{difference}");
        }
    }
}
