// SPDX-License-Identifier: MIT OR Apache-2.0
//! Legacy replacement: who drives IRQ 0 and IRQ 8 (IA-PC HPET specification 1.0a, 2.3.5).

use alloc::sync::Arc;

use spin::Mutex;
use vmm_core::{InterruptInputs, IrqLine};

use crate::output_line::OutputLine;

/// IRQ 0 and IRQ 8.
const LINES: usize = 2;
/// Inputs: the legacy devices' lines, then the comparators'.
const PIT: u32 = 0;
const RTC: u32 = 1;
const FIRST_COMPARATOR: u32 = 2;

/// The switch in IRQ 0 and IRQ 8 between the legacy devices (8254 and RTC) and comparators 0
/// and 1 of the HPET. It starts at the legacy devices.
///
/// What is not connected is remembered, so that a line has the right level after the switch.
/// Locks are taken in the order device, switch, interrupt controllers.
pub struct LegacyReplacement {
    switch: Mutex<Switch>,
}

struct Switch {
    replaced: bool,
    /// Levels of the inputs, a bit each.
    inputs: u32,
    outputs: [OutputLine; LINES],
}

impl LegacyReplacement {
    /// A switch in front of these two lines.
    pub fn new(irq0: IrqLine, irq8: IrqLine) -> Arc<Self> {
        let outputs = [irq0, irq8].map(OutputLine::new);
        Arc::new(Self { switch: Mutex::new(Switch { replaced: false, inputs: 0, outputs }) })
    }

    /// The line for the 8254.
    pub fn pit_line(self: &Arc<Self>) -> IrqLine {
        IrqLine::new(self.clone(), PIT)
    }

    /// The line for the RTC.
    pub fn rtc_line(self: &Arc<Self>) -> IrqLine {
        IrqLine::new(self.clone(), RTC)
    }

    /// The lines for comparators 0 and 1.
    pub(super) fn hpet_lines(self: &Arc<Self>) -> [IrqLine; LINES] {
        [0, 1].map(|index| IrqLine::new(self.clone(), FIRST_COMPARATOR + index))
    }

    /// Connects the comparators, or the legacy devices.
    pub(super) fn switch(&self, replaced: bool) {
        let mut switch = self.switch.lock();
        switch.replaced = replaced;
        switch.drive();
    }
}

impl Switch {
    fn drive(&mut self) {
        let connected = self.inputs >> if self.replaced { FIRST_COMPARATOR } else { PIT };
        for (index, output) in self.outputs.iter_mut().enumerate() {
            output.set(connected >> index & 1 != 0);
        }
    }
}

impl InterruptInputs for LegacyReplacement {
    fn set_input(&self, input: u32, asserted: bool) {
        let mut switch = self.switch.lock();
        let bit = 1u32.checked_shl(input).unwrap_or(0);
        switch.inputs = if asserted { switch.inputs | bit } else { switch.inputs & !bit };
        switch.drive();
    }
}
