// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt output of a device.

use vmm_core::IrqLine;

/// Remembers the level of an [`IrqLine`], so that controllers hear of changes only.
///
/// Lives under the device's lock, which keeps the changes in order.
pub(crate) struct OutputLine {
    line: IrqLine,
    asserted: bool,
}

impl OutputLine {
    /// A deasserted line.
    pub fn new(line: IrqLine) -> Self {
        Self { line, asserted: false }
    }

    /// The level that the line was last driven to.
    pub fn is_asserted(&self) -> bool {
        self.asserted
    }

    /// Drives the line.
    pub fn set(&mut self, asserted: bool) {
        if self.asserted != asserted {
            self.asserted = asserted;
            self.line.set(asserted);
        }
    }

    /// Makes one rising edge and leaves the line deasserted.
    pub fn pulse(&mut self) {
        self.set(false);
        self.line.pulse();
    }
}
