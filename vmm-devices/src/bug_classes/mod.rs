// SPDX-License-Identifier: MIT OR Apache-2.0
//! Regression tests by class of bugs; see the module of the same name in `vmm-core`, and
//! `tests/mutants/` at the root of the repository.

mod pci_extended_bits;
mod wrapping;
