// SPDX-License-Identifier: MIT OR Apache-2.0
//! ACPI tables that describe the PC platform to its guest (ACPI 6.5, chapter 5).

mod build;
mod dsdt;
mod fadt;
mod hpet;
mod madt;
mod pci_root;

pub use build::{
    AcpiError, AcpiTables, Blob, MAX_VCPUS, PlatformConfig, TABLES_BASE, TABLES_END, build,
};
pub(crate) use madt::io_apic_id;
