// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results, one line each.

use std::fmt::{Debug, Display};
use std::process::ExitCode;

/// Counts and prints results.
#[derive(Default)]
pub struct Report {
    test: &'static str,
    passed: u32,
    failed: u32,
}

impl Report {
    /// Says which test the following results belong to.
    pub fn begin(&mut self, test: &'static str) {
        self.test = test;
    }

    /// Passes if `good`; prints `detail` either way.
    pub fn check(&mut self, name: impl Display, good: bool, detail: impl Display) {
        let (count, word) =
            if good { (&mut self.passed, "ok") } else { (&mut self.failed, "not ok") };
        *count += 1;
        println!("{word} {} {name}: {detail}", self.test);
    }

    /// Passes if both are the same.
    pub fn equal<T: PartialEq + Debug>(&mut self, name: impl Display, got: T, expected: T) {
        let good = got == expected;
        self.check(name, good, format_args!("got {got:?}, expected {expected:?}"));
    }

    /// The value, or a failure that says why there is none.
    pub fn need<T, E: Display>(&mut self, name: impl Display, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.check(name, false, error)).ok()
    }

    /// Says that a test does not apply here; counts neither way.
    pub fn skip(&self, name: impl Display, why: impl Display) {
        println!("skip {} {name}: {why}", self.test);
    }

    /// Prints the totals and gives the exit status.
    pub fn finish(self) -> ExitCode {
        println!("{} passed, {} failed", self.passed, self.failed);
        ExitCode::from(u8::from(self.failed > 0))
    }
}
