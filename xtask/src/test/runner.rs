// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs rows, as many at once as there are CPUs.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result};

use super::row::{Log, Row, Tally};
use crate::paths::Paths;

/// Lines of a failed row's log that are shown.
const SHOWN_LINES: usize = 12;

/// A row that was run.
#[derive(Clone, PartialEq, Debug)]
pub struct Finished {
    /// Its name.
    pub name: String,
    /// Its tests.
    pub tally: Tally,
    /// How long it took.
    pub seconds: f64,
}

/// Runs all rows, those that run alone first, and prints a line for each.
///
/// # Errors
/// When the folder for logs cannot be made.
pub fn run_rows(paths: &Paths, rows: Vec<Row>) -> Result<Vec<Finished>> {
    let folder = paths.row_logs();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (alone, together): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.exclusive);
    let mut finished: Vec<Finished> = alone.into_iter().map(|row| run_one(row, &folder)).collect();

    let queue = Mutex::new(VecDeque::from(together));
    let results = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                // Not `while let`, which would hold the queue's lock while the row runs.
                loop {
                    let Some(row) = lock(&queue).pop_front() else { break };
                    let done = run_one(row, &folder);
                    lock(&results).push(done);
                }
            });
        }
    });
    finished.extend(results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    Ok(finished)
}

/// The lock's content; whatever a panicking holder left is a whole list.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn run_one(row: Row, folder: &Path) -> Finished {
    let name = row.name.clone();
    let begin = Instant::now();
    let (tally, complaint) = match Log::create(folder, &name) {
        Err(error) => (Tally { passed: 0, failed: 1 }, Some(format!("{error:#}"))),
        Ok(mut log) => judge(row, &mut log),
    };
    let seconds = begin.elapsed().as_secs_f64();
    match complaint {
        None => println!("ok    {name} ({seconds:.1} s)"),
        Some(complaint) => println!("FAIL  {name} ({seconds:.1} s): {complaint}"),
    }
    Finished { name, tally, seconds }
}

/// Runs the row; the complaint if it failed says where to look.
fn judge(row: Row, log: &mut Log) -> (Tally, Option<String>) {
    let (tally, why) = match row.run(log) {
        Ok(tally) if tally.failed == 0 && tally.passed > 0 => return (tally, None),
        Ok(tally) if tally.failed == 0 => {
            (Tally { passed: 0, failed: 1 }, "no test was run".to_owned())
        }
        Ok(tally) => (tally, format!("{} of its tests failed", tally.failed)),
        Err(error) => (Tally { passed: 0, failed: 1 }, format!("{error:#}")),
    };
    let text = fs::read(log.path()).unwrap_or_default();
    let complaint = format!("{why}\n      log: {}{}", log.path().display(), tail(&text));
    (tally, Some(complaint))
}

/// The last lines, each on a line of its own and indented.
fn tail(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .iter()
        .skip(lines.len().saturating_sub(SHOWN_LINES))
        .map(|line| format!("\n      | {}", beginning(line)))
        .collect()
}

/// As much of a line as is good to read; a report is a single one.
fn beginning(line: &str) -> String {
    const SHOWN_CHARACTERS: usize = 200;
    match line.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_run_and_counted() {
        let target = tempfile::tempdir().unwrap();
        let paths = Paths { root: target.path().into(), target: target.path().into() };
        let rows = vec![
            Row::new("good", |_| Ok(Tally { passed: 3, failed: 0 })),
            Row::new("alone", |_| Ok(Tally::ONE)).alone(),
            Row::new("bad", |log| {
                log.line("why");
                Ok(Tally { passed: 1, failed: 2 })
            }),
            Row::new("broken", |_| anyhow::bail!("broken")),
            Row::new("empty", |_| Ok(Tally::default())),
        ];
        let finished = run_rows(&paths, rows).unwrap();
        assert_eq!(finished[0].name, "alone");
        let total = finished.iter().map(|row| row.tally).fold(Tally::default(), Tally::plus);
        assert_eq!(total, Tally { passed: 5, failed: 4 });
        assert_eq!(fs::read(paths.row_logs().join("bad.log")).unwrap(), b"why\n");
    }

    /// Each of two rows waits for the other to begin.
    #[test]
    fn rows_run_side_by_side() {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        let target = tempfile::tempdir().unwrap();
        let paths = Paths { root: target.path().into(), target: target.path().into() };
        let (to_first, at_first) = std::sync::mpsc::channel();
        let (to_second, at_second) = std::sync::mpsc::channel();
        let meets = |own: std::sync::mpsc::Receiver<()>, other: std::sync::mpsc::Sender<()>| {
            move |_: &mut Log| {
                let _ = other.send(());
                own.recv_timeout(std::time::Duration::from_secs(60))?;
                Ok(Tally::ONE)
            }
        };
        let rows = vec![
            Row::new("first", meets(at_first, to_second)),
            Row::new("second", meets(at_second, to_first)),
        ];
        let finished = run_rows(&paths, rows).unwrap();
        assert!(finished.iter().all(|row| row.tally == Tally::ONE));
    }

    #[test]
    fn the_tail_is_short() {
        let many = "x\n".repeat(100);
        assert_eq!(tail(many.as_bytes()).lines().count(), SHOWN_LINES + 1);
        assert!(tail("é".repeat(10_000).as_bytes()).chars().count() < 300);
        assert_eq!(tail(b""), "");
    }
}
