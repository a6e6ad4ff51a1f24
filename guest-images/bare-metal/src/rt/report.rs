// SPDX-License-Identifier: MIT OR Apache-2.0
//! Test results, one line each.

use core::fmt::{Debug, Display};

/// Counts and prints results.
#[derive(Default)]
pub struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Passes when both are the same. Values are printed in hexadecimal.
    pub fn equal<T: PartialEq + Debug>(&mut self, name: impl Display, got: T, expected: T) {
        if got == expected {
            self.passed += 1;
            println!("ok {name}");
        } else {
            self.failed += 1;
            println!("not ok {name}: got {got:x?} expected {expected:x?}");
        }
    }

    /// Passes when `low <= got <= high`. Values are printed in decimal.
    pub fn within(&mut self, name: impl Display, got: u64, low: u64, high: u64) {
        if (low..=high).contains(&got) {
            self.passed += 1;
            println!("ok {name}");
        } else {
            self.failed += 1;
            println!("not ok {name}: got {got} expected {low}..={high}");
        }
    }

    /// Passes when the condition holds; else prints the value it was drawn from.
    pub fn holds(&mut self, name: impl Display, condition: bool, value: impl Debug) {
        if condition {
            self.passed += 1;
            println!("ok {name}");
        } else {
            self.failed += 1;
            println!("not ok {name}: got {value:x?}");
        }
    }

    /// Says that a test does not apply here; counts neither way.
    pub fn skip(&self, name: impl Display, why: &str) {
        println!("skip {name}: {why}");
    }

    /// Prints the totals and gives the exit value.
    pub fn finish(self) -> u32 {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed
    }
}
