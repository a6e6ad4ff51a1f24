// SPDX-License-Identifier: MIT OR Apache-2.0
//! One module for each guest; `run` gives its exit value.

pub mod acpi;
pub mod console;
pub mod counter;
pub mod cpuid_loop;
pub mod denied;
pub mod drift;
pub mod exceptions;
pub mod firmware;
pub mod hello;
pub mod hostile;
pub mod interrupts;
pub mod loader;
pub mod mmio;
pub mod modes;
pub mod msr_cpuid;
pub mod neighbour;
pub mod nmi;
pub mod paging;
pub mod privilege;
pub mod residue;
pub mod smp;
pub mod strio;
pub mod tasks;
pub mod timers;
pub mod torture;
