// SPDX-License-Identifier: MIT OR Apache-2.0
//! Redirection table entries.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};
use vmm_core::{ApicMessage, DeliveryMode, Destination, Vector};

/// The bits of an entry's lower half that software writes: not the delivery status and the
/// remote IRR.
const WRITABLE: u32 = 0x0001_AFFF;

/// An entry of the redirection table (82093AA data sheet, 3.2.4).
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectionEntry {
    /// Vector.
    pub vector: u8,
    /// Delivery mode, see [`DeliveryMode::from_bits`].
    #[bits(3)]
    pub delivery_mode: u8,
    /// The destination is logical.
    pub logical: bool,
    /// Delivery status; delivery is immediate, so this is never set. Read-only.
    pub send_pending: bool,
    /// Polarity: active low.
    pub active_low: bool,
    /// A level-triggered interrupt was accepted and has not ended. Read-only.
    pub remote_irr: bool,
    /// Level-triggered.
    pub level_triggered: bool,
    /// Masked.
    pub masked: bool,
    #[bits(39)]
    __: u64,
    /// Destination.
    pub destination: u8,
}

const _: () = assert!(size_of::<RedirectionEntry>() == 8);

impl RedirectionEntry {
    /// True if the entry is level-triggered in a mode for which that counts: the others are
    /// always edges.
    pub(super) fn waits_for_eoi(self) -> bool {
        let mode = DeliveryMode::from_bits(self.delivery_mode());
        let acknowledged = matches!(mode, Some(DeliveryMode::Fixed | DeliveryMode::LowestPriority));
        self.level_triggered() && acknowledged
    }

    /// What the entry sends; `None` for the reserved modes, and start-up is one of them here.
    pub(super) fn message(self) -> Option<ApicMessage> {
        let delivery = DeliveryMode::from_bits(self.delivery_mode())?;
        (delivery != DeliveryMode::StartUp).then(|| ApicMessage {
            destination: Destination::from_byte(self.destination(), self.logical()),
            delivery,
            vector: Vector(self.vector()),
            level_triggered: self.waits_for_eoi(),
        })
    }

    /// Writes one half. An entry that is not level-triggered waits for no end of interrupt:
    /// guests rely on that to clear the remote IRR.
    pub(super) fn write_half(&mut self, high: bool, value: u32) {
        let bits = self.into_bits();
        let (keep, new) = if high {
            (0x00FF_FFFF_FFFF_FFFF, u64::from(value & 0xFF00_0000) << 32)
        } else {
            (!u64::from(WRITABLE), u64::from(value & WRITABLE))
        };
        *self = Self::from_bits(bits & keep | new);
        if !self.waits_for_eoi() {
            self.set_remote_irr(false);
        }
    }
}
