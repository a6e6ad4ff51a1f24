// SPDX-License-Identifier: MIT OR Apache-2.0
//! Call sites against outcomes, as the book shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use host_mock::{HostCall, Injected};
use vmm_core::vm::BuildError;

use crate::life::{Kind, Machine, Outcome, Stillborn};

/// Functions that only pass a call on.
const PASS_ON: &[&str] = &[
    "vmm_core::memory::pages::OwnedPages::",
    "vmm_core::paging::shadow::table_memory::TableMemory::",
    "vmm_core::doorbell::",
    "vmm_core::control::",
];

/// What one fault came to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    call: HostCall,
    /// What was being done.
    phase: &'static str,
    /// The function that made the call.
    site: String,
    machine: &'static str,
    outcome: String,
    /// All calls of the kind failed from there on.
    sustained: bool,
}

impl Finding {
    pub fn new(kind: Kind, injected: &Injected, outcome: &Outcome, sustained: bool) -> Self {
        let machine = match kind.machine {
            Machine::Mock if kind.shadow => "any, shadow paging",
            Machine::Mock => "any, nested paging",
            Machine::Svm => "SVM",
            Machine::Vmx(_) => "VT-x",
        };
        let outcome = describe(outcome);
        let (call, phase, site) = (injected.call, injected.phase, site(injected));
        Self { call, phase, site, machine, outcome, sustained }
    }

    /// True if it is of a fault of `call`.
    pub fn is_of(&self, call: HostCall) -> bool {
        self.call == call
    }
}

fn site(injected: &Injected) -> String {
    let passes_on = |name: &str| PASS_ON.iter().any(|wrapper| name.starts_with(wrapper));
    let site = injected.callers.iter().find(|name| !passes_on(name));
    let site = site.map_or("", String::as_str);
    if site.starts_with("host_faults::") {
        return "the embedder".into();
    }
    format!("`{}`", site.trim_start_matches("vmm_core::"))
}

/// An outcome in words; errors by their types.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Stillborn(Stillborn::Probe(error)) => {
            format!("refused: `Unsupported::Host`, \"{}\"", plain(&error.to_string()))
        }
        Outcome::Stillborn(Stillborn::Build(error)) => {
            let variant = match error {
                BuildError::Host { .. } => "BuildError::Host",
                _ => "another BuildError",
            };
            format!("refused: `{variant}`, \"{}\"", plain(&error.to_string()))
        }
        Outcome::Stillborn(other) => format!("refused: {other:?}"),
        Outcome::Built => "made up for".into(),
        Outcome::Ended(vmm_core::EndReason::ExitPort(0), output) if output.is_empty() => {
            "runs, without a console".into()
        }
        Outcome::Ended(vmm_core::EndReason::ExitPort(0), _) => "made up for".into(),
        Outcome::Ended(reason, _) => format!("ends: {reason}"),
        Outcome::Stopped => "waits, and can be stopped".into(),
    }
}

/// A message without the numbers that depend on the VM's size or on who asks.
fn plain(message: &str) -> String {
    let mut text = String::new();
    for word in message.split(' ') {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit());
        let end = word.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        text.push(' ');
        text.push_str(if is_number { "N" } else { word });
        text.push_str(if is_number { end } else { "" });
    }
    text.trim_start().to_owned()
}

/// A row: call, phase and site, and for one fault and for lasting ones what was seen.
type Rows = BTreeMap<(HostCall, &'static str, String), [BTreeSet<String>; 2]>;

fn rows(findings: &[Finding]) -> Rows {
    let mut rows = Rows::new();
    for finding in findings {
        let key = (finding.call, finding.phase, finding.site.clone());
        let row = rows.entry(key).or_default();
        row[usize::from(finding.sustained)].insert(finding.outcome.clone());
    }
    rows
}

/// The table of the book.
pub fn markdown(findings: &[Finding]) -> String {
    let mut text = String::from(
        "| call | while | made by | one fails | all fail from there on |\n|---|---|---|---|---|\n",
    );
    let join = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join("; or ");
    for ((call, phase, site), [once, lasting]) in rows(findings) {
        let (name, once, lasting) = (call.name(), join(&once), join(&lasting));
        writeln!(text, "| `{name}` | {phase} | {site} | {once} | {lasting} |")
            .expect("strings have room");
    }
    for call in HostCall::ALL.into_iter().filter(|call| call.failure().is_none()) {
        writeln!(text, "| `{}` | – | – | cannot fail | – |", call.name()).expect("see above");
    }
    text
}

/// All findings, each once, for tools.
pub fn json(findings: &[Finding]) -> serde_json::Value {
    let distinct: BTreeSet<&Finding> = findings.iter().collect();
    let one = |finding: &Finding| {
        serde_json::json!({
            "call": finding.call.name(),
            "phase": finding.phase,
            "site": finding.site.trim_matches('`'),
            "machine": finding.machine,
            "sustained": finding.sustained,
            "outcome": finding.outcome,
        })
    };
    distinct.into_iter().map(one).collect()
}

/// The page with the table.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/testing.md");
const BEGIN: &str = "<!-- faults:table -->";
const END: &str = "<!-- /faults:table -->";

/// Compares the book's table with `table`, or replaces it if `update` says so.
///
/// # Errors
/// What differs, and how to mend it.
pub fn compare_with_book(table: &str, update: bool) -> Result<(), String> {
    let page = std::fs::read_to_string(PAGE).map_err(|error| format!("{PAGE}: {error}"))?;
    let lacks = || format!("{PAGE} lacks the markers {BEGIN} and {END}");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(lacks)?;
    let (stored, after) = rest.split_once(END).ok_or_else(lacks)?;
    if update {
        let page = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim());
        return std::fs::write(PAGE, page).map_err(|error| format!("{PAGE}: {error}"));
    }
    let (stored, table): (BTreeSet<&str>, BTreeSet<&str>) =
        (stored.trim().lines().collect(), table.trim().lines().collect());
    let gone = stored.difference(&table).map(|line| format!("only in the book: {line}"));
    let new = table.difference(&stored).map(|line| format!("only measured: {line}"));
    let differences: Vec<String> = gone.chain(new).collect();
    match differences.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{}\nif that is meant, refresh the table by 'cargo xtask faults --update-docs'",
            differences.join("\n")
        )),
    }
}
