// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of a mutation.

use serde::Serialize;

use super::catalogue::Mutation;

/// Whether a mutation was noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Its test failed.
    Killed,
    /// Its test passed as before.
    Survived,
}

impl Verdict {
    /// As the table says it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Survived => "SURVIVED",
        }
    }
}

/// A line of the table.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outcome {
    /// Class of bugs.
    pub class: String,
    /// What is wrong with the code.
    pub what: String,
    /// The file that was changed.
    pub file: String,
    /// The test that has to notice it.
    pub test: String,
    /// Whether it did.
    pub verdict: Verdict,
    /// Time for building and testing.
    pub seconds: f64,
}

/// Class, mutation, test and what became of it, in columns.
pub fn row(mutation: &Mutation, verdict: &str) -> String {
    let Mutation { class, what, test, .. } = mutation;
    format!("{verdict:<8}  {class:<18}  {what:<72}  {test}").trim().to_owned()
}
