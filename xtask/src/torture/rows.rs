// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows for `test`: some rounds, always the same, and damage that has to be noticed.

use anyhow::{Context, Result, ensure};
use wire::Damage;

use super::machine::{Limit, Machine};
use super::outcome::Outcome;
use super::plan::Plan;
use crate::cargo_build;
use crate::paths::Paths;
use crate::platform::{Platform, qemu};
use crate::run::options::Paging;
use crate::test::{Log, Row, Tally};

/// Rounds of a row of `test`, and the seed of the first.
const ROUNDS: u64 = 60;
const SEED: u64 = 1000;

/// All damage that can be done, and what is said of it.
const DAMAGE: [(Damage, &str); 3] = [
    (Damage::Canary, "memory that belongs to nobody was changed"),
    (Damage::Image, "code or constants were changed"),
    (Damage::AddressSpace, "page tables were changed"),
];

/// All rows of this kind.
pub fn rows(paths: &Paths) -> Vec<Row> {
    let paging = [Paging::Nested, Paging::Shadow].map(|paging| {
        let paths = paths.clone();
        Row::new(format!("torture/qemu/max/{}", paging.name()), move |log| {
            let machine = (Platform::Qemu, qemu::TCG_CPU, paging);
            let outcome = some_rounds(&paths, machine, ROUNDS, log)?;
            ensure!(outcome.is_well(), "{}", outcome.text());
            Ok(Tally::ONE)
        })
    });
    let paths = paths.clone();
    let noticed = Row::new("torture/damage-is-noticed", move |log| {
        let image = cargo_build::faulty_cokernel(&paths)?;
        for (damage, said) in DAMAGE {
            let plan = short_plan()?.with_damage(damage);
            let outcome = run(&paths, image.clone(), &plan, log)?;
            let first = outcome.faults().first().context("damage was not noticed")?;
            ensure!(first.what.contains(said), "{damage:?}: {}", first.what);
        }
        let mut plan = short_plan()?;
        if let Some(neighbour) = &mut plan.torture.neighbour {
            neighbour.command_line = "spoil".into();
        }
        let outcome = run(&paths, image, &plan, log)?;
        let first = outcome.faults().first().context("a spoilt neighbour was not noticed")?;
        ensure!(first.what.contains("neighbour was disturbed"), "{}", first.what);
        Ok(Tally { passed: 4, failed: 0 })
    });
    paging.into_iter().chain([noticed]).collect()
}

/// Runs so many rounds, always the same, on a machine and CPU model with this way of paging.
///
/// # Errors
/// When the machine cannot be had.
pub fn some_rounds(
    paths: &Paths,
    (platform, model, paging): (Platform, &str, Paging),
    rounds: u64,
    log: &mut Log,
) -> Result<Outcome> {
    let plan = Plan::new(platform, model, Some(paging), SEED, Limit::Rounds(rounds))?;
    run(paths, cargo_build::cokernel(paths)?, &plan, log)
}

fn short_plan() -> Result<Plan> {
    Plan::new(Platform::Qemu, qemu::TCG_CPU, None, SEED, Limit::Rounds(20))
}

fn run(paths: &Paths, image: std::path::PathBuf, plan: &Plan, log: &mut Log) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let machine = Machine { image, folder: folder.path().to_owned() };
    let outcome = machine.run(paths, plan)?;
    log.write(&std::fs::read(folder.path().join("log")).unwrap_or_default());
    log.line(outcome.text());
    Ok(outcome)
}
