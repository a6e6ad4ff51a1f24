// SPDX-License-Identifier: MIT OR Apache-2.0
//! One combination of the matrix, and the row that runs it.

use anyhow::{Result, ensure};

use super::guest::{Guest, Kind};
use super::matrix::{CPUS, Cpu};
use super::table::{Entry, Table};
use super::{Effort, RegressOptions, bare_metal, drift, entry_faults, linux, self_test};
use crate::paths::Paths;
use crate::platform::Platform;
use crate::test::{Log, Row, Tally};
use crate::torture::rows;

/// A guest on a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Where.
    pub cpu: &'static Cpu,
    /// What.
    pub guest: &'static Guest,
}

impl Cell {
    /// All cells, or those that `test` runs.
    pub fn all(full: bool) -> impl Iterator<Item = Self> {
        CPUS.iter().flat_map(move |cpu| {
            let guests: Vec<_> = match full {
                true => cpu.guests().collect(),
                false => cpu.tested.iter().collect(),
            };
            guests.into_iter().map(move |guest| Self { cpu, guest })
        })
    }

    /// Whether the options ask for it.
    pub fn is_wanted(&self, options: &RegressOptions) -> bool {
        options.platform.is_none_or(|platform| platform == self.cpu.platform)
            && options.cpu.as_ref().is_none_or(|model| model == self.cpu.model)
            && options.paging.is_none_or(|paging| paging == self.cpu.paging)
            && options.filter.as_ref().is_none_or(|part| self.name().contains(part))
    }

    /// Name of the row.
    pub fn name(&self) -> String {
        let kind = match self.guest.kind {
            Kind::Linux(_) => "boot",
            Kind::BareMetal { .. } => "bare-metal",
            Kind::EntryFaults(_) => "vm",
            Kind::SelfTest(_) => "self-test",
            Kind::Drift(_) => "time",
            Kind::Torture(_) => "vm",
        };
        let Cpu { platform, model, .. } = self.cpu;
        format!("{kind}/{}/{model}/{}/{}", platform.name(), self.cpu.way(), self.guest.name)
    }

    /// The row, which enters what came of it into `table`. In a run that repeats rows it is
    /// named by its round, and runs alone, since the rounds are to follow each other. So do
    /// bare-metal guests and self-tests on QEMU, many of which measure time, which passes there
    /// as on the machine outside.
    pub fn row(self, paths: &Paths, table: &Table, effort: Effort, round: Option<u32>) -> Row {
        let (paths, table) = (paths.clone(), table.clone());
        let name = round.map_or(self.name(), |round| format!("{}/{round}", self.name()));
        let row = Row::new(name, move |log| {
            let mut entry = Entry::new(self.cpu, self.guest);
            let result = self.run(&paths, effort, &mut entry, log);
            match &result {
                Err(error) => entry.result = format!("{error:#}"),
                Ok(tally) if tally.failed > 0 => {
                    entry.result = format!("{} of its tests failed", tally.failed);
                }
                Ok(_) => {}
            }
            table.enter(entry);
            result
        });
        if round.is_some() || self.depends_on_load() { row.alone() } else { row }
    }

    fn depends_on_load(&self) -> bool {
        let may_measure = matches!(self.guest.kind, Kind::BareMetal { .. } | Kind::SelfTest(_));
        may_measure && self.cpu.platform == Platform::Qemu
    }

    fn run(
        &self,
        paths: &Paths,
        effort: Effort,
        entry: &mut Entry,
        log: &mut Log,
    ) -> Result<Tally> {
        match &self.guest.kind {
            Kind::Linux(guest) => linux::run(paths, self.cpu, guest, entry, log),
            Kind::BareMetal { check } => bare_metal::run(paths, self.cpu, *check, entry, log),
            Kind::EntryFaults(faults) => entry_faults::run(paths, self.cpu, faults, entry, log),
            Kind::SelfTest(tests) => self_test::run(self.cpu, tests, effort, entry, log),
            Kind::Drift(observer) => drift::run(paths, self.cpu, *observer, effort, entry, log),
            Kind::Torture(rounds) => self.torture(paths, *rounds, entry, log),
        }
    }
}

impl Cell {
    fn torture(
        &self,
        paths: &Paths,
        rounds: u64,
        entry: &mut Entry,
        log: &mut Log,
    ) -> Result<Tally> {
        let Cpu { platform, model, paging, .. } = *self.cpu;
        let outcome = rows::some_rounds(paths, (platform, model, paging), rounds, log)?;
        entry.seconds = outcome.seconds();
        entry.exits = outcome.exits();
        entry.backend = outcome.backend().to_owned();
        ensure!(outcome.is_well(), "{}", outcome.text());
        Ok(Tally::ONE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::run::options::Paging;

    #[test]
    fn names_are_unique_and_the_subset_is_smaller() {
        let names: Vec<String> = Cell::all(true).map(|cell| cell.name()).collect();
        let unique: HashSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        let tested = Cell::all(false).count();
        assert!((1..names.len()).contains(&tested));
    }

    #[test]
    fn options_choose_by_what_a_cell_is() {
        let wanted = |options: RegressOptions| {
            Cell::all(true).filter(|cell| cell.is_wanted(&options)).count()
        };
        let all = wanted(RegressOptions::default());
        let of = |platform| RegressOptions { platform, ..RegressOptions::default() };
        assert_eq!(wanted(of(Some(Platform::Qemu))) + wanted(of(Some(Platform::Bochs))), all);
        let of = |paging| RegressOptions { paging, ..RegressOptions::default() };
        assert_eq!(wanted(of(Some(Paging::Nested))) + wanted(of(Some(Paging::Shadow))), all);
        let cpu = Some("max".to_owned());
        let paging = Some(Paging::Nested);
        let exact = wanted(RegressOptions { cpu, paging, ..RegressOptions::default() });
        assert_eq!(exact, CPUS[0].guests().count(), "not those whose name begins alike");
        let filter = Some("tigerlake/nested/hello".to_owned());
        assert_eq!(wanted(RegressOptions { filter, ..RegressOptions::default() }), 1);
    }
}
