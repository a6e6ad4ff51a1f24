// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debug registers of a guest whose #DB was intercepted.

use super::vcpu::SvmVcpu;
use crate::state::{dr6, dr7, rflags};

impl SvmVcpu {
    /// Completes the debug registers of an intercepted #DB as its delivery would have: GD is
    /// clear behind it, and DR6 names the cause. Bochs 2.7 leaves both to the delivery that does
    /// not happen, and what can be told from elsewhere is put right.
    pub(super) fn complete_debug_registers(&mut self) {
        let save = &mut self.vmcb_mut().save;
        if save.dr6 & dr6::CAUSES == 0 {
            if save.rflags & rflags::TF != 0 {
                save.dr6 |= dr6::SINGLE_STEP;
            } else if save.dr7 & dr7::GENERAL_DETECT != 0 {
                save.dr6 |= dr6::GENERAL_DETECT;
            }
        }
        save.dr7 &= !dr7::GENERAL_DETECT;
    }
}
