// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the figures are to be, beside what they are.

use serde::Serialize;
use serde_json::Value;

use super::layout;
use super::results::grouped;

/// The most that single operations should take, in instructions.
const EXITS: [(&str, f64); 4] =
    [("cpuid", 300.0), ("hypercall", 300.0), ("port-read-uart", 450.0), ("port-write-uart", 450.0)];

/// Rows whose instruction has to be emulated begin so.
const EMULATED: [&str; 2] = ["ioapic-", "xapic-"];

/// What the others should take at most, as parts of KVM's.
const OF_KVM_EMULATED: f64 = 3.0;
const OF_KVM: f64 = 5.0;

/// Boot, as parts of the bare machine's.
const BOOT_TICKS: f64 = 1.05;
const BOOT_CLOCK: f64 = 0.90;

/// What computations may take more, in per cent.
const COMPUTE: f64 = 0.01;

/// A figure beside the most that it should be.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verdict {
    /// What.
    name: String,
    /// The figure.
    figure: f64,
    /// The most that it should be.
    limit: f64,
    /// Digits to be shown behind the point.
    #[serde(skip)]
    digits: usize,
}

impl Verdict {
    fn new(name: impl Into<String>, figure: f64, limit: f64, digits: usize) -> Self {
        Self { name: name.into(), figure, limit, digits }
    }

    fn is_met(&self) -> bool {
        self.figure <= self.limit
    }

    fn cells(&self) -> Vec<String> {
        let number = |number: f64| match self.digits {
            0 => grouped(number.round() as u64),
            digits => format!("{number:.digits$}"),
        };
        let verdict = match (self.is_met(), self.limit > 0.0) {
            (true, _) => "met".to_owned(),
            (false, true) => {
                let (more, part) = (self.figure - self.limit, self.figure / self.limit - 1.0);
                format!("missed by {}, {:.1} %", number(more), part * 100.0)
            }
            (false, false) => "missed".to_owned(),
        };
        vec![self.name.clone(), number(self.limit), number(self.figure), verdict]
    }
}

/// Verdicts on the figures of all benchmarks by name; what was not measured has none.
pub fn judge(figures: &Value) -> Vec<Verdict> {
    let mut verdicts = exits(&figures["exits"]);
    verdicts.extend(boot(&figures["boot"]));
    verdicts.extend(memory(&figures["memory"]));
    verdicts.extend(compute(&figures["compute"]));
    verdicts.extend(noise(&figures["noise"]));
    verdicts
}

fn exits(figures: &Value) -> Vec<Verdict> {
    let rows = figures["rows"].as_array().into_iter().flatten();
    let verdict = |row: &Value| {
        let name = row["name"].as_str()?;
        let median = |place: &str| row["figures"][place]["median"].as_f64();
        let fixed = EXITS.iter().find(|(row, _)| *row == name).map(|(_, limit)| *limit);
        let of_kvm = || {
            let emulated = EMULATED.iter().any(|start| name.starts_with(start));
            let part = median("kvm")? / if emulated { OF_KVM_EMULATED } else { OF_KVM };
            // Nothing can be below the bare machine.
            Some(part.floor().max(median("bare").unwrap_or(0.0)))
        };
        let limit = fixed.or_else(of_kvm)?;
        Some(Verdict::new(format!("exits: {name}"), median("alcazar")?, limit, 0))
    };
    rows.filter_map(verdict).collect()
}

fn boot(figures: &Value) -> Vec<Verdict> {
    let ratio = |field: &str| {
        let value = |place: &str| figures["boots"][place][field].as_f64();
        Some(value("alcazar")? / value("bare").filter(|&bare| bare > 0.0)?)
    };
    let rows = [
        ("boot: kernel to /init, of bare", "ticks", BOOT_TICKS),
        ("boot: guest's clock at /init, of bare", "clock", BOOT_CLOCK),
    ];
    rows.into_iter()
        .filter_map(|(name, field, limit)| Some(Verdict::new(name, ratio(field)?, limit, 3)))
        .collect()
}

fn memory(figures: &Value) -> Option<Verdict> {
    let (total, limit) = (figures["total"].as_f64()?, figures["limit"].as_f64()?);
    Some(Verdict::new("memory: all, in bytes", total, limit, 0))
}

/// The worst row.
fn compute(figures: &Value) -> Option<Verdict> {
    let rows = figures["rows"].as_array()?;
    let overheads = rows.iter().filter_map(|row| row["overhead_per_cent"]["alcazar"].as_f64());
    let worst = overheads.max_by(f64::total_cmp)?;
    Some(Verdict::new("compute: instructions added, in per cent", worst, COMPUTE, 2))
}

/// An undisturbed guest has no detours but its own ticks, and a neighbour changes nothing.
fn noise(figures: &Value) -> Vec<Verdict> {
    let samples = || figures["samples"].as_array().into_iter().flatten();
    let value = |scenario: &str, ticks: bool, part: &str, field: &str| {
        let is_wanted = |sample: &&Value| {
            sample["scenario"] == scenario && sample["span"]["tick"].is_null() != ticks
        };
        samples().find(is_wanted)?[part][field].as_f64()
    };
    let detours = |scenario, ticks| value(scenario, ticks, "figures", "detours");
    let foreign =
        || Some(detours("alcazar", true)? - value("alcazar", true, "span", "timer_ticks")?);
    let change = |ticks, field| {
        let of = |scenario| value(scenario, ticks, "figures", field);
        Some((of("neighbour")? - of("alone")?).abs())
    };
    let rows = [
        ("noise: detours without a tick", detours("alcazar", false)),
        ("noise: detours beyond the guest's own ticks", foreign()),
        ("noise: detours that a neighbour adds, no tick", change(false, "detours")),
        ("noise: detours that a neighbour adds", change(true, "detours")),
        ("noise: change of the longest by a neighbour", change(true, "longest")),
    ];
    let verdict = |(name, figure): (&str, Option<f64>)| Some(Verdict::new(name, figure?, 0.0, 0));
    rows.into_iter().filter_map(verdict).collect()
}

fn cells(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let head = ["target", "at most", "is", ""].map(str::to_owned).to_vec();
    std::iter::once(head).chain(verdicts.iter().map(Verdict::cells)).collect()
}

/// For a terminal.
pub fn text(verdicts: &[Verdict]) -> String {
    let missed = verdicts.iter().filter(|verdict| !verdict.is_met()).count();
    let table = layout::text(&cells(verdicts));
    format!("{table}{} of {} targets met\n", verdicts.len() - missed, verdicts.len())
}

/// For the book.
pub fn markdown(verdicts: &[Verdict]) -> String {
    layout::markdown(&cells(verdicts))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(name: &str, bare: u64, alcazar: u64, kvm: u64) -> Value {
        let figures = [("bare", bare), ("alcazar", alcazar), ("kvm", kvm)]
            .map(|(place, median)| (place.to_owned(), json!({ "median": median })));
        json!({ "name": name, "figures": Value::Object(figures.into_iter().collect()) })
    }

    #[test]
    fn each_kind_of_row_has_its_limit() {
        let rows = [
            row("cpuid", 7, 301, 2851),
            row("rdmsr", 3, 500, 2501),
            row("xapic-read", 3, 900, 2702),
            row("invlpg", 3, 3, 3),
        ];
        let verdicts = exits(&json!({ "rows": rows }));
        let limit = |verdict: &Verdict| (verdict.limit, verdict.is_met());
        let limits: Vec<_> = verdicts.iter().map(limit).collect();
        assert_eq!(limits, [(300.0, false), (500.0, true), (900.0, true), (3.0, true)]);
        assert_eq!(verdicts[0].cells()[3], "missed by 1, 0.3 %");
    }

    #[test]
    fn ratios_and_sums_are_judged() {
        let figures = json!({
            "boot": { "boots": {
                "bare": { "ticks": 1000, "clock": 1000 },
                "alcazar": { "ticks": 1100, "clock": 880 },
            }},
            "memory": { "total": 1_500_000, "limit": 2_097_152 },
            "compute": { "rows": [
                { "overhead_per_cent": { "alcazar": 0.0 } },
                { "overhead_per_cent": { "alcazar": 0.5 } },
            ]},
        });
        let verdicts = judge(&figures);
        let met: Vec<bool> = verdicts.iter().map(Verdict::is_met).collect();
        assert_eq!(met, [false, true, true, false]);
        let text = text(&verdicts);
        assert!(text.contains("2 of 4 targets met"), "{text}");
        assert!(text.contains("1,500,000") && text.contains("missed by 0.050, 4.8 %"), "{text}");
    }

    #[test]
    fn noise_is_counted_beyond_own_ticks() {
        let sample = |scenario: &str, tick: Option<u64>, detours: u64, longest: u64| {
            json!({
                "scenario": scenario,
                "figures": { "detours": detours, "longest": longest },
                "span": { "tick": tick, "timer_ticks": tick.map_or(0, |_| 50) },
            })
        };
        let samples = [
            sample("alcazar", None, 0, 0),
            sample("alcazar", Some(9), 52, 300),
            sample("alone", None, 1, 5),
            sample("neighbour", None, 1, 5),
            sample("alone", Some(9), 50, 300),
            sample("neighbour", Some(9), 50, 340),
        ];
        let figures: Vec<_> =
            noise(&json!({ "samples": samples })).iter().map(|verdict| verdict.figure).collect();
        assert_eq!(figures, [0.0, 2.0, 0.0, 0.0, 40.0]);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(judge(&json!({})), []);
        assert_eq!(judge(&json!({ "exits": { "rows": [{ "name": "cpuid" }] } })), []);
    }
}
