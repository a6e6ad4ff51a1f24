// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes of a host whose calls fail: each call, at each place, in a VM's whole life with the
//! PC platform, beside a neighbour.

mod guest;
mod life;
mod sweep;
mod table;

use std::{env, fs, thread};

use host_mock::{FaultPattern, HostCall};
use proptest::prelude::*;
use vmm_core::vmx::SampleModel;

use life::{Kind, Machine, Outcome};
use sweep::Ground;

/// File for all findings as JSON.
const JSON: &str = "HOST_FAULTS_JSON";
/// Prints the table when it is set.
const PRINT: &str = "HOST_FAULTS_PRINT";
/// Replaces the table of the book when it is set.
const UPDATE_DOCS: &str = "HOST_FAULTS_UPDATE_DOCS";

const MACHINES: [Machine; 5] = [
    Machine::Mock,
    Machine::Svm,
    Machine::Vmx(SampleModel::Complete),
    Machine::Vmx(SampleModel::NoUnrestrictedGuest),
    Machine::Vmx(SampleModel::NoEpt),
];

/// The kinds of lives on `machine`. Where no guest runs, one of two vCPUs shows all.
fn kinds(machine: Machine) -> impl Iterator<Item = Kind> {
    let has_nested = machine != Machine::Vmx(SampleModel::NoEpt);
    let shadows = [false, true].into_iter().filter(move |&shadow| shadow || has_nested);
    let fewest = if machine == Machine::Mock { 1 } else { 2 };
    shadows.flat_map(move |shadow| (fewest..=2).map(move |vcpus| Kind { machine, shadow, vcpus }))
}

/// The calls that can fail, and so have to be swept.
fn fallible() -> impl Iterator<Item = HostCall> {
    HostCall::ALL.into_iter().filter(|call| call.failure().is_some())
}

/// Those that a life on `machine` makes otherwise than one on another.
fn particular(machine: Machine) -> impl Iterator<Item = HostCall> {
    fallible().filter(move |&call| machine == Machine::Mock || call == HostCall::AllocatePages)
}

#[test]
fn whatever_call_fails_the_outcome_is_that_of_the_book() {
    let all: Vec<Kind> = MACHINES.into_iter().flat_map(kinds).collect();
    let sweep = |kind: Kind| {
        let ground = Ground::new();
        let mut findings = Vec::new();
        for call in particular(kind.machine) {
            ground.sweep(kind, call, &mut findings);
        }
        ground.leave();
        findings
    };
    let findings: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|&kind| scope.spawn(move || sweep(kind))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("see its message")).collect()
    });
    for call in fallible() {
        assert!(findings.iter().any(|finding| finding.is_of(call)), "no {call:?} in any life");
    }
    if let Some(path) = env::var_os(JSON) {
        let text = serde_json::to_string_pretty(&table::json(&findings)).expect("it is plain");
        fs::write(path, text + "\n").expect("the file can be written");
    }
    let table = table::markdown(&findings);
    if env::var_os(PRINT).is_some() {
        print!("{table}");
    }
    let update = env::var_os(UPDATE_DOCS).is_some();
    if let Err(difference) = table::compare_with_book(&table, update) {
        panic!("{difference}");
    }
}

/// Every call of the trait is made in a whole life, so that none can be forgotten in the sweep.
#[test]
fn a_whole_life_makes_every_call() {
    let ground = Ground::new();
    let kind = Kind { machine: Machine::Mock, shadow: true, vcpus: 2 };
    let missing = ground.calls_missing_in(kind);
    ground.leave();
    let by_hand = [HostCall::CpuCount];
    assert_eq!(missing, by_hand, "only backends with hardware ask for the number of CPUs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_pattern_of_failures_harms_more_than_its_vm(
        pattern in prop::collection::vec(prop::bool::weighted(0.15), 1..160),
        shadow: bool,
        vcpus in 1_u32..=2,
    ) {
        let ground = Ground::new();
        let kind = Kind { machine: Machine::Mock, shadow, vcpus };
        ground.live(kind, FaultPattern::Listed(pattern));
        let (outcome, _) = ground.live(kind, FaultPattern::None);
        prop_assert!(matches!(outcome, Outcome::Ended(vmm_core::EndReason::ExitPort(0), _)));
        ground.leave();
    }
}
