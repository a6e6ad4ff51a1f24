// SPDX-License-Identifier: MIT OR Apache-2.0
//! Regression tests by class of bugs: each class has let a guest out of some hypervisor, or brought
//! one down. Tests of single modules are beside these; `tests/mutants/` at the root of the
//! repository has the list of both for each class, with a fault in the code that they must notice.

mod chains;
mod cpuid_leaves;
mod double_fetch;
mod event_in_delivery;
mod odd_entry;
mod privilege;
mod region_end;
mod reserved_bits;
mod unhooked;
mod wrapping;
