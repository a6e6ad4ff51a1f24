// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that are made to fail, and who made them.

use std::{backtrace::Backtrace, ops::RangeInclusive};

use crate::HostCall;

/// Which calls are to fail. Numbers count the calls of one kind from when the plan was made, and
/// begin at 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FaultPattern {
    /// None; they are only counted.
    None,
    /// One call.
    Nth(HostCall, u64),
    /// That call and all of its kind behind it.
    From(HostCall, u64),
    /// Of all calls that can fail, whatever their kind, those whose number, from 0 on, has a
    /// `true` here.
    Listed(Vec<bool>),
}

/// Faults for a part of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultPlan {
    /// The CPUs whose calls count and fail; others are served.
    pub cpus: RangeInclusive<u32>,
    /// Which of their calls fail.
    pub pattern: FaultPattern,
}

/// A call that was made to fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Injected {
    /// The call.
    pub call: HostCall,
    /// What was being done, as [`MockHost::begin_phase`](crate::MockHost::begin_phase) was told.
    pub phase: &'static str,
    /// The functions that led to it, the innermost first, as far as they are functions of this
    /// workspace: crate, modules and name, without type parameters. Looking for them takes long,
    /// so it is done for [`FaultPattern::Nth`] only.
    pub callers: Vec<String>,
}

/// What a plan has met.
#[derive(Default)]
pub(crate) struct Faults {
    plan: Option<FaultPlan>,
    pub phase: &'static str,
    counts: [u64; HostCall::ALL.len()],
    fallible: usize,
    injected: Vec<Injected>,
}

impl Faults {
    /// Follows `plan` from now on; returns what the one before has done.
    pub fn replace(&mut self, plan: Option<FaultPlan>) -> Vec<Injected> {
        let before = std::mem::replace(self, Self { plan, ..Self::default() });
        before.injected
    }

    /// Goes on counting, and has nothing fail.
    pub fn mend(&mut self) {
        if let Some(plan) = &mut self.plan {
            plan.pattern = FaultPattern::None;
        }
    }

    /// True if every wait ends early from now on.
    pub fn ends_all_waits(&self) -> bool {
        let pattern = self.plan.as_ref().map(|plan| &plan.pattern);
        let begun = |first: u64| self.count(HostCall::IdleWhile) + 1 >= first;
        matches!(pattern, Some(FaultPattern::From(HostCall::IdleWhile, first)) if begun(*first))
    }

    /// Calls of this kind by the plan's CPUs.
    pub fn count(&self, call: HostCall) -> u64 {
        self.counts[call as usize]
    }

    /// Counts a call. True if it has to fail.
    pub fn fails(&mut self, call: HostCall, cpu: u32) -> bool {
        let Some(plan) = self.plan.as_ref().filter(|plan| plan.cpus.contains(&cpu)) else {
            return false;
        };
        self.counts[call as usize] += 1;
        if call.failure().is_none() {
            return false;
        }
        let (number, place) = (self.counts[call as usize], self.fallible);
        self.fallible += 1;
        let fails = match &plan.pattern {
            FaultPattern::None => false,
            FaultPattern::Nth(kind, nth) => *kind == call && *nth == number,
            FaultPattern::From(kind, first) => *kind == call && *first <= number,
            FaultPattern::Listed(list) => list.get(place).copied().unwrap_or(false),
        };
        if fails {
            let alone = matches!(plan.pattern, FaultPattern::Nth(..));
            let callers = if alone { callers() } else { Vec::new() };
            self.injected.push(Injected { call, phase: self.phase, callers });
        }
        fails
    }
}

/// The crates whose functions are named.
const CRATES: [&str; 3] = ["vmm_core::", "vmm_devices::", "host_faults::"];

/// The functions of the workspace on the stack, the innermost first.
fn callers() -> Vec<String> {
    let trace = Backtrace::force_capture().to_string();
    let functions = trace.lines().filter_map(|line| {
        // A function is on a line with its number, its place in the source on the next.
        let (number, name) = line.trim_start().split_once(": ")?;
        number.bytes().all(|byte| byte.is_ascii_digit()).then(|| plain(name))
    });
    let mut found: Vec<String> =
        functions.filter(|name| CRATES.iter().any(|known| name.starts_with(known))).collect();
    found.dedup();
    found
}

/// A function's path without types and closures: `vmm_core::fpu::FpuState::new` for
/// `<vmm_core::fpu::FpuState>::new` and for `vmm_core::fpu::FpuState::new::{{closure}}`.
fn plain(symbol: &str) -> String {
    let mut path = symbol;
    let mut method = "";
    if let Some(rest) = symbol.strip_prefix('<') {
        let end = closing(rest);
        (path, method) = (&rest[..end], rest[end..].trim_start_matches('>'));
        path = path.split(" as ").next().unwrap_or(path);
    }
    let mut depth = 0_u32;
    let mut name = String::new();
    for c in path.chars().chain(method.chars()) {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            c if depth == 0 => name.push(c),
            _ => {}
        }
    }
    let parts = name.split("::").filter(|part| !part.is_empty() && !part.starts_with('{'));
    parts.collect::<Vec<_>>().join("::")
}

/// Where the bracket ends that was opened before `text`.
fn closing(text: &str) -> usize {
    let mut depth = 1_u32;
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_however_a_compiler_writes_them() {
        for (symbol, name) in [
            ("vmm_core::fpu::FpuState::new", "vmm_core::fpu::FpuState::new"),
            ("<vmm_core::fpu::FpuState>::new", "vmm_core::fpu::FpuState::new"),
            ("vmm_core::vm::Vm<V>::build::{{closure}}", "vmm_core::vm::Vm::build"),
            ("<vmm_core::vm::Vm<V> as core::ops::Drop>::drop", "vmm_core::vm::Vm::drop"),
            ("vmm_core::a::Tables<F>::map_all::<vmm_core::B>", "vmm_core::a::Tables::map_all"),
            ("<vmm_core::vm::Vm<V>>::build::{closure#0}::{closure#1}", "vmm_core::vm::Vm::build"),
        ] {
            assert_eq!(plain(symbol), name);
        }
    }

    #[test]
    fn only_the_calls_of_the_plan_fail_and_only_those_of_its_cpus_count() {
        let mut faults = Faults::default();
        let pattern = FaultPattern::Nth(HostCall::Kick, 2);
        faults.replace(Some(FaultPlan { cpus: 1..=2, pattern }));
        let kicks = [0, 1, 3, 2, 1].map(|cpu| faults.fails(HostCall::Kick, cpu));
        assert_eq!(kicks, [false, false, false, true, false]);
        assert!(!faults.fails(HostCall::RunOn, 1));
        assert_eq!((faults.count(HostCall::Kick), faults.count(HostCall::RunOn)), (3, 1));
        let injected = faults.replace(None);
        assert!(matches!(&injected[..], [Injected { call: HostCall::Kick, .. }]));
    }

    #[test]
    fn a_list_counts_all_calls_that_can_fail() {
        let mut faults = Faults::default();
        let pattern = FaultPattern::Listed(vec![false, true, true]);
        faults.replace(Some(FaultPlan { cpus: 0..=0, pattern }));
        let calls = [HostCall::Kick, HostCall::Tsc, HostCall::RunOn, HostCall::Tsc];
        assert_eq!(calls.map(|call| faults.fails(call, 0)), [false, false, true, false]);
        assert!(faults.fails(HostCall::ArmTimer, 0) && !faults.fails(HostCall::ArmTimer, 0));
    }
}
