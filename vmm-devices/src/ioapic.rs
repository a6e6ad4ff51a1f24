// SPDX-License-Identifier: MIT OR Apache-2.0
//! The I/O APIC.

mod redirection;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};
use spin::Mutex;
use vmm_core::{
    AccessWidth, ApicBus, ApicMessage, EoiObserver, GuestPhysAddr, InterruptInputs, MmioDevice,
    Vector,
};

pub use redirection::RedirectionEntry;

/// Register offsets in the page.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

/// Indices of registers behind the window.
const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const FIRST_ENTRY: u8 = 0x10;

/// The bits of the ID register that exist.
const ID_MASK: u32 = 0x0F00_0000;

/// Version with an EOI register; 24 redirection entries.
const VERSION_VALUE: u32 = 0x20 | (IoApic::INPUTS - 1) << 16;

const ENTRIES: usize = IoApic::INPUTS as usize;

/// State of the I/O APIC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IoApicState {
    select: u8,
    id: u32,
    /// State of the inputs, a bit each.
    lines: u32,
    entries: [RedirectionEntry; ENTRIES],
}

/// An I/O APIC with 24 inputs (Intel 82093AA data sheet, order number 290566; EOI register:
/// Intel ICH9 data sheet, 13.5.4).
///
/// An input is asserted or not; whether that means a high or a low voltage is the board's
/// affair, so the polarity bit of an entry is kept and has no effect. Edges on a masked input
/// are lost, as the data sheet says. A message that no local APIC accepts is dropped; a
/// level-triggered one is sent again when the entry or the input changes.
///
/// The lock is not held while a message is on the APIC bus, so that a local APIC may call
/// [`end_of_interrupt`](EoiObserver::end_of_interrupt) whatever the bus does. A local APIC
/// must not hold its own lock then, because a request that persists is delivered at once.
pub struct IoApic {
    state: Mutex<IoApicState>,
    bus: Arc<dyn ApicBus>,
}

impl IoApic {
    /// Where the first I/O APIC of a PC lies.
    pub const BASE: GuestPhysAddr = GuestPhysAddr::new(0xFEC0_0000);
    /// Length of its range in bytes.
    pub const BYTES: u64 = 0x1000;
    /// Number of inputs.
    pub const INPUTS: u32 = 24;

    /// An I/O APIC with all inputs masked that sends its messages to `bus`. `id` is its
    /// initial APIC ID, below 16, as the MADT gives it.
    pub fn new(id: u8, bus: Arc<dyn ApicBus>) -> Arc<Self> {
        let state = IoApicState {
            select: 0,
            id: u32::from(id) << 24 & ID_MASK,
            lines: 0,
            entries: [RedirectionEntry::new().with_masked(true); ENTRIES],
        };
        Arc::new(Self { state: Mutex::new(state), bus })
    }

    /// Takes the state out.
    pub fn save(&self) -> IoApicState {
        self.state.lock().clone()
    }

    /// Puts a state back. Nothing is delivered: what was under way is in the state of the
    /// local APICs.
    pub fn restore(&self, state: IoApicState) {
        *self.state.lock() = state;
    }

    /// Delivers the request of a level-triggered input, if it has one.
    fn serve_level(&self, input: usize) {
        let message = self.state.lock().take_level_request(input);
        let Some(message) = message else { return };
        if !self.bus.deliver(message) {
            self.state.lock().refused(input);
        }
    }

    fn end(&self, vector: u8) {
        let ended = self.state.lock().end_of_interrupt(vector);
        (0..ENTRIES).filter(|input| ended >> input & 1 != 0).for_each(|i| self.serve_level(i));
    }

    fn write_window(&self, value: u32) {
        let changed = self.state.lock().write_selected(value);
        if let Some(input) = changed {
            self.serve_level(input);
        }
    }
}

/// An input of an I/O APIC and its entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApicInputState {
    /// Number of the input.
    pub number: u32,
    /// Its entry in the redirection table.
    pub entry: RedirectionEntry,
    /// Whether it is asserted.
    pub asserted: bool,
}

impl IoApicState {
    /// All inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = IoApicInputState> + '_ {
        (0..).zip(&self.entries).map(|(number, &entry)| IoApicInputState {
            number,
            entry,
            asserted: self.lines >> number & 1 != 0,
        })
    }

    /// Notes the level of an input; returns the message if that was an edge to deliver.
    fn set_line(&mut self, input: usize, asserted: bool) -> Option<ApicMessage> {
        let mask = 1 << input;
        let was = self.lines & mask != 0;
        self.lines = if asserted { self.lines | mask } else { self.lines & !mask };
        let entry = self.entries.get(input)?;
        if !asserted || was || entry.masked() || entry.waits_for_eoi() {
            return None;
        }
        entry.message()
    }

    /// The message for a level-triggered input that is asserted, unmasked and not yet
    /// delivered; from then on it waits for the end of interrupt.
    fn take_level_request(&mut self, input: usize) -> Option<ApicMessage> {
        let asserted = self.lines >> input & 1 != 0;
        let entry = self.entries.get_mut(input)?;
        if !asserted || entry.masked() || entry.remote_irr() || !entry.waits_for_eoi() {
            return None;
        }
        entry.set_remote_irr(true);
        entry.message()
    }

    fn refused(&mut self, input: usize) {
        if let Some(entry) = self.entries.get_mut(input) {
            entry.set_remote_irr(false);
        }
    }

    /// Ends the interrupts with `vector`; the result has a bit for each input concerned.
    fn end_of_interrupt(&mut self, vector: u8) -> u32 {
        let mut ended = 0;
        for (input, entry) in self.entries.iter_mut().enumerate() {
            if entry.vector() == vector && entry.remote_irr() {
                entry.set_remote_irr(false);
                ended |= 1 << input;
            }
        }
        ended
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_VALUE,
            index => {
                let entry = entry_of(index).and_then(|(input, _)| self.entries.get(input));
                let bits = entry.map_or(0, |e| e.into_bits());
                let shift = if index & 1 == 0 { 0 } else { 32 };
                (bits >> shift & 0xFFFF_FFFF) as u32
            }
        }
    }

    /// Writes the selected register; the result is the input whose entry changed.
    fn write_selected(&mut self, value: u32) -> Option<usize> {
        if self.select == ID {
            self.id = value & ID_MASK;
        }
        let (input, high) = entry_of(self.select)?;
        self.entries.get_mut(input)?.write_half(high, value);
        Some(input)
    }
}

/// The entry that register `index` belongs to, and whether it is its upper half.
fn entry_of(index: u8) -> Option<(usize, bool)> {
    let index = index.checked_sub(FIRST_ENTRY)?;
    let input = usize::from(index / 2);
    (input < ENTRIES).then_some((input, index & 1 != 0))
}

impl InterruptInputs for IoApic {
    fn set_input(&self, input: u32, asserted: bool) {
        if input >= Self::INPUTS {
            return;
        }
        let input = input as usize;
        let edge = self.state.lock().set_line(input, asserted);
        match edge {
            Some(message) => {
                self.bus.deliver(message);
            }
            None if asserted => self.serve_level(input),
            None => {}
        }
    }
}

impl EoiObserver for IoApic {
    fn end_of_interrupt(&self, vector: Vector) {
        self.end(vector.0);
    }
}

/// Registers are 32 bits wide. Narrower reads get the register's low part; a wider one is
/// two of which the second finds nothing and reads as zero. Narrower writes reach the index
/// and EOI registers, which have eight bits; to the window they are dropped.
impl MmioDevice for IoApic {
    fn name(&self) -> &str {
        "ioapic"
    }

    fn read_mmio(&self, offset: u64, width: AccessWidth) -> Option<u64> {
        let state = self.state.lock();
        let value = match offset {
            SELECT => u32::from(state.select),
            WINDOW => state.read_selected(),
            EOI => 0,
            _ => return None,
        };
        Some(u64::from(value) & width.all_ones())
    }

    fn write_mmio(&self, offset: u64, width: AccessWidth, value: u64) -> bool {
        let [low_byte, ..] = value.to_le_bytes();
        match offset {
            SELECT => self.state.lock().select = low_byte,
            WINDOW if width >= AccessWidth::Dword => {
                self.write_window((value & 0xFFFF_FFFF) as u32);
            }
            EOI => self.end(low_byte),
            _ => return false,
        }
        true
    }
}
