// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PAUSE filter: the guest exits when it has executed PAUSE often (AMD APM vol. 2, 15.14.4).
//!
//! Each vCPU has a CPU of its own, so there is nobody to make room for: the exit counts the
//! wait, and the guest goes on waiting. The count is the highest, so that the exits cost a
//! thousandth of the time that is lost anyhow.

use super::{
    capability::{Capabilities, SvmFeatures},
    vmcb::ControlArea,
};

/// PAUSEs before an exit.
const COUNT: u16 = u16::MAX;
/// The count begins anew at a PAUSE that is more than so many cycles behind the one before,
/// where the CPU knows a threshold.
const THRESHOLD: u16 = 512;

/// Has `control` filter PAUSEs if the CPU can; without the filter each would exit.
pub fn limit_spinning(control: &mut ControlArea, capabilities: &Capabilities) {
    if capabilities.has(SvmFeatures::PAUSE_FILTER) {
        control.intercepts1.set_pause(true);
        control.pause_filter_count = COUNT;
        if capabilities.has(SvmFeatures::PAUSE_FILTER_THRESHOLD) {
            control.pause_filter_threshold = THRESHOLD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svm::capability::CpuidLeaves;

    fn limited(svm_edx: u32) -> ControlArea {
        let leaves = CpuidLeaves {
            max_extended: 0x8000_000A,
            extended_ecx: 1 << 2,
            svm_ebx: 16,
            svm_edx,
            ..CpuidLeaves::default()
        };
        // SAFETY: a control area of zeroes is valid; the CPU makes none of it either.
        let mut control: ControlArea = unsafe { core::mem::zeroed() };
        limit_spinning(&mut control, &Capabilities::from_cpuid(&leaves).unwrap());
        control
    }

    #[test]
    fn is_used_where_it_is_offered() {
        let filtered = |control: ControlArea| {
            let ControlArea { pause_filter_count, pause_filter_threshold, .. } = control;
            (control.intercepts1.pause(), pause_filter_count, pause_filter_threshold)
        };
        assert_eq!(filtered(limited(0x44F)), (true, COUNT, 0), "ryzen of Bochs");
        assert_eq!(filtered(limited(1 << 10 | 1 << 12)), (true, COUNT, THRESHOLD));
        assert_eq!(filtered(limited(1)), (false, 0, 0), "each PAUSE would exit");
    }
}
