// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt command register (Intel SDM vol. 3, 11.6.1 and 11.12.9).

use bitfield_struct::bitfield;

use super::{
    LocalApic,
    bus::FIRST_LEGAL_VECTOR,
    local::{ESR_SEND_ILLEGAL_VECTOR, is_fixed},
};
use crate::{ApicMessage, DeliveryMode, Destination, Vector};

/// The interrupt command register.
#[bitfield(u64)]
pub(super) struct Icr {
    vector: u8,
    #[bits(3)]
    delivery_mode: u8,
    logical: bool,
    /// Read-only: nothing is ever being sent, because delivery is immediate.
    delivery_status: bool,
    _reserved_13: bool,
    asserted: bool,
    level_triggered: bool,
    #[bits(2)]
    _reserved_16: u8,
    #[bits(2)]
    shorthand: u8,
    #[bits(12)]
    _reserved_20: u16,
    /// All 32 bits in x2APIC mode, the high eight in xAPIC mode.
    destination: u32,
}

/// The low half's bits that x2APIC mode lets software write; the delivery status is
/// read-only rather than reserved.
pub(super) const ICR_DEFINED: u64 = 0xFFFF_FFFF_000C_DFFF;

const SELF: u8 = 1;
const ALL: u8 = 2;
const ALL_BUT_SELF: u8 = 3;

impl LocalApic {
    /// Sends the interrupt that `value` describes and keeps it for reading.
    pub(super) fn command(&mut self, value: u64, x2apic: bool) {
        let icr = Icr::from_bits(value).with_delivery_status(false);
        self.icr = icr.into_bits();
        let Some(delivery) = DeliveryMode::from_bits(icr.delivery_mode()) else { return };
        if delivery == DeliveryMode::Init && icr.level_triggered() && !icr.asserted() {
            return; // INIT level de-assert only sets arbitration IDs of old buses.
        }
        if is_fixed(delivery) && icr.vector() < FIRST_LEGAL_VECTOR {
            self.report_error(ESR_SEND_ILLEGAL_VECTOR);
            return;
        }
        if icr.shorthand() == SELF {
            if delivery == DeliveryMode::Fixed {
                self.send_to_self(icr.vector());
            }
            return;
        }
        let message = ApicMessage {
            destination: destination(icr, x2apic),
            delivery,
            vector: Vector(icr.vector()),
            level_triggered: false,
        };
        let sender = (icr.shorthand() == ALL_BUT_SELF).then_some(&*self.config.inbox);
        self.config.bus.deliver_except(message, sender);
    }

    /// Writes the high half of the register in xAPIC mode, which sends nothing yet.
    #[inline]
    pub fn set_command_high(&mut self, value: u32) {
        const DESTINATION: u32 = 0xFF00_0000;
        self.icr = self.icr & 0xFFFF_FFFF | u64::from(value & DESTINATION) << 32;
    }

    /// The self-IPI, which needs neither bus nor doorbell: the owner is at work already.
    #[inline]
    pub(super) fn send_to_self(&mut self, vector: u8) {
        if vector < FIRST_LEGAL_VECTOR {
            self.report_error(ESR_SEND_ILLEGAL_VECTOR);
            return;
        }
        if self.software_enabled() {
            self.irr.insert(Vector(vector));
            self.tmr.remove(Vector(vector));
        }
    }
}

fn destination(icr: Icr, x2apic: bool) -> Destination {
    match (icr.shorthand(), x2apic) {
        (ALL | ALL_BUT_SELF, _) => Destination::All,
        (_, false) => Destination::from_byte((icr.destination() >> 24) as u8, icr.logical()),
        (_, true) if icr.destination() == u32::MAX => Destination::All,
        (_, true) if icr.logical() => Destination::Logical(icr.destination()),
        (_, true) => Destination::Physical(icr.destination()),
    }
}
