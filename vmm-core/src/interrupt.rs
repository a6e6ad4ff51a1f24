// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt lines and messages between devices and local APICs.

use alloc::sync::Arc;

use crate::{InterruptInputs, Vector};

/// One interrupt line, held by the device that drives it.
#[derive(Clone)]
pub struct IrqLine {
    controller: Arc<dyn InterruptInputs>,
    input: u32,
}

impl IrqLine {
    /// The line into `input` of `controller`.
    pub fn new(controller: Arc<dyn InterruptInputs>, input: u32) -> Self {
        Self { controller, input }
    }

    /// Drives the line.
    pub fn set(&self, asserted: bool) {
        self.controller.set_input(self.input, asserted);
    }

    /// Asserts and deasserts the line: one edge.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

/// Delivery mode of an interrupt message (AMD APM vol. 2, 16.5; Intel SDM vol. 3, 11.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryMode {
    /// To all addressed local APICs.
    Fixed,
    /// To the addressed local APIC that runs at the lowest priority.
    LowestPriority,
    /// System management interrupt; not modelled, ignored.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up, with the page of the entry point as vector.
    StartUp,
    /// Vector supplied by an external controller.
    ExtInt,
}

impl DeliveryMode {
    /// From the three-bit field of redirection entries, MSI data and the ICR; `None` for the
    /// reserved value.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 7 {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            2 => Some(Self::Smi),
            4 => Some(Self::Nmi),
            5 => Some(Self::Init),
            6 => Some(Self::StartUp),
            7 => Some(Self::ExtInt),
            _ => None,
        }
    }
}

/// Which local APICs a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The local APIC with this ID. 0xFF is a broadcast if the message came in xAPIC or MSI
    /// form, which [`Destination::from_byte`] resolves.
    Physical(u32),
    /// Those whose logical destination register matches.
    Logical(u32),
    /// All.
    All,
}

impl Destination {
    /// From the eight-bit destination of a redirection entry, an MSI address or an xAPIC ICR.
    pub const fn from_byte(id: u8, logical: bool) -> Self {
        match (id, logical) {
            (0xFF, false) => Self::All,
            (id, false) => Self::Physical(id as u32),
            (id, true) => Self::Logical(id as u32),
        }
    }
}

/// A message on the APIC bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicMessage {
    /// Addressee.
    pub destination: Destination,
    /// What is asked of it.
    pub delivery: DeliveryMode,
    /// Vector; unused by NMI and INIT.
    pub vector: Vector,
    /// Level-triggered: the addressee broadcasts the end of interrupt.
    pub level_triggered: bool,
}

/// Takes interrupt messages to local APICs.
pub trait ApicBus: Send + Sync {
    /// Delivers `message`; true if at least one local APIC accepted it.
    fn deliver(&self, message: ApicMessage) -> bool;
}
