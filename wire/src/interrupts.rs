// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt controllers of a VM, as they were when it ended.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

/// A local APIC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalApicReport {
    /// APIC ID.
    pub id: u32,
    /// `off`, `xapic` or `x2apic`.
    pub mode: String,
    /// Enabled in the spurious-interrupt vector register.
    pub software_enabled: bool,
    /// Task priority register.
    pub tpr: u8,
    /// Processor priority register.
    pub ppr: u8,
    /// Vectors that were requested and not delivered.
    pub requested: Vec<u8>,
    /// Vectors in service.
    pub in_service: Vec<u8>,
    /// Entries of the local vector table that were not masked.
    pub unmasked: Vec<LocalVector>,
}

/// An entry of a local vector table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalVector {
    /// `timer`, `thermal`, `performance`, `lint0`, `lint1` or `error`.
    pub name: String,
    /// The register (Intel SDM vol. 3, 11.5.1).
    pub value: u32,
}

/// An input of the I/O APIC that was in use: not masked, asserted, or with an interrupt that had
/// not ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IoApicInput {
    /// Number of the input.
    pub input: u32,
    /// Vector.
    pub vector: u8,
    /// Delivery mode: `fixed`, `lowest`, `smi`, `nmi`, `init`, `extint` or `reserved`.
    pub delivery: String,
    /// Destination: an APIC ID, or a logical destination.
    pub destination: u8,
    /// The destination is logical.
    pub logical: bool,
    /// Level-triggered.
    pub level: bool,
    /// Masked.
    pub masked: bool,
    /// An interrupt was accepted and had not ended.
    pub remote_irr: bool,
    /// The input was asserted.
    pub asserted: bool,
}
