// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segment registers that real mode has loaded and left without the rights an entry asks for.
//!
//! A load in real mode sets selector and base, and makes the register usable. Where the register
//! held a null selector before, Bochs 2.7 leaves the type of the null descriptor, and then refuses
//! the entry, which asks for accessed data segments (Intel SDM vol. 3, 26.3.1.2). No instruction
//! shows the type, and real mode writes to every segment. Protected mode begins with the registers
//! of real mode, and makes no such ones by itself: it marks what it loads as accessed.

use super::vcpu::VmxVcpu;
use crate::{
    backend::VcpuBackend,
    state::{Segment, SegmentRegister},
};

const DATA: [SegmentRegister; 5] = [
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Es,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
];

/// Data, writable, accessed.
const WRITABLE_ACCESSED: u8 = 3;

/// `segment` as real mode has it; `None` if nothing is missing.
fn completed(segment: Segment) -> Option<Segment> {
    let attributes = segment.attributes;
    let is_bare = !attributes.unusable() && attributes.kind() == 0;
    let completed = attributes.with_kind(WRITABLE_ACCESSED).with_code_or_data(true);
    is_bare.then_some(Segment { attributes: completed, ..segment })
}

impl VmxVcpu {
    /// After an entry was refused for the guest's state: gives data segments that real mode has
    /// loaded the rights that they lack. True if there were any, so that the entry is worth another
    /// trial.
    pub(super) fn complete_data_segments(&mut self) -> bool {
        let mut changed = false;
        for register in DATA {
            if let Some(segment) = completed(self.segment(register)) {
                self.set_segment(register, segment);
                changed = true;
            }
        }
        changed
    }
}
