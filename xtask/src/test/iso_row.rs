// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ISO image boots through firmware and GRUB.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wire::EndKind;

use super::invoke::Invocation;
use super::machine::TestMachine;
use super::row::{Log, Row, Tally};
use crate::setup;

/// The row; it needs GRUB's tools and installs them.
pub fn row() -> Row {
    Row::new("iso/boots", |log| {
        setup::ensure_iso_tools()?;
        boots(log)?;
        Ok(Tally::ONE)
    })
}

fn boots(log: &mut Log) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let iso = folder.path().join("alcazar.iso");
    let place = iso.to_string_lossy();
    let options = ["iso", "--output", &place, "--exec", "echo from-the-iso-$((6*7))"];
    Invocation::xtask(options)?.run(log)?.expect_status(0)?;
    let answer = TestMachine::from_iso(iso)?.run(Duration::from_secs(120), log)?;
    ensure!(answer.console.contains("from-the-iso-42"), "the guest did not run its command");
    let report = answer.report()?;
    let vm = report.vms.first().context("the report has no VM")?;
    ensure!(vm.end.kind == EndKind::PowerOff, "it ended: {}", vm.end.detail);
    Ok(())
}
