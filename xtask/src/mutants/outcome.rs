// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of a mutation.

use std::path::PathBuf;

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
    /// It does not compile, and so says nothing: the code has changed since it was written.
    Outdated,
}

impl Verdict {
    /// As the table says it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Survived => "SURVIVED",
            Self::Outdated => "OUTDATED",
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
    /// What the compiler said of one that it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
}

/// The last line of a run, and its exit status: 1 if a mutation was not noticed, or is outdated.
pub fn summary(verdicts: impl Iterator<Item = Verdict> + Clone) -> (String, u8) {
    let count = |wanted| verdicts.clone().filter(|verdict| *verdict == wanted).count();
    let (survived, outdated) = (count(Verdict::Survived), count(Verdict::Outdated));
    let mut line = format!("{} killed, {survived} survived", count(Verdict::Killed));
    if outdated > 0 {
        line += &format!(", {outdated} do not compile any more");
    }
    (line, u8::from(survived + outdated > 0))
}

/// Class, mutation, test and what became of it, in columns.
pub fn row(mutation: &Mutation, verdict: &str) -> String {
    let Mutation { class, what, test, .. } = mutation;
    format!("{verdict:<8}  {class:<18}  {what:<72}  {test}").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_in_which_all_are_killed_succeeds() {
        use Verdict::{Killed, Outdated, Survived};
        let of = |verdicts: &[Verdict]| summary(verdicts.iter().copied());
        assert_eq!(of(&[Killed, Killed]), ("2 killed, 0 survived".into(), 0));
        assert_eq!(of(&[Killed, Survived]), ("1 killed, 1 survived".into(), 1));
        let line = "0 killed, 0 survived, 1 do not compile any more";
        assert_eq!(of(&[Outdated]), (line.into(), 1));
    }
}
