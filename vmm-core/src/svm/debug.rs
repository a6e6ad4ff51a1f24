// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debug registers of a guest whose #DB was intercepted.

use super::vcpu::SvmVcpu;
use crate::state::rflags;

/// Bits of DR6 that name the cause of a #DB (AMD APM vol. 2, 13.1.1.3).
const DR6_CAUSES: u64 = 0xE00F;
/// DR6.BS: a single step (AMD APM vol. 2, 13.1.1.3).
pub(super) const DR6_SINGLE_STEP: u64 = 1 << 14;
/// DR6.BD: an access to a debug register was detected.
const DR6_DEBUG_ACCESS: u64 = 1 << 13;
/// DR7.GD: accesses to debug registers are detected (AMD APM vol. 2, 13.1.1.4).
const DR7_GENERAL_DETECT: u64 = 1 << 13;

impl SvmVcpu {
    /// Completes the debug registers of an intercepted #DB as its delivery would have: GD is
    /// clear behind it, and DR6 names the cause. Bochs 2.7 leaves both to the delivery that does
    /// not happen, and what can be told from elsewhere is put right.
    pub(super) fn complete_debug_registers(&mut self) {
        let save = &mut self.vmcb_mut().save;
        if save.dr6 & DR6_CAUSES == 0 {
            if save.rflags & rflags::TF != 0 {
                save.dr6 |= DR6_SINGLE_STEP;
            } else if save.dr7 & DR7_GENERAL_DETECT != 0 {
                save.dr6 |= DR6_DEBUG_ACCESS;
            }
        }
        save.dr7 &= !DR7_GENERAL_DETECT;
    }
}
