// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single steps: one instruction is executed with the trap flag set, to get control back behind
//! it where the CPU offers no exit of its own.

use super::{decode, nmi::NmiBlocking, vcpu::SvmVcpu};
use crate::{
    Exit,
    state::{dr6, rflags},
};

/// A step that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The guest itself had the flag set.
    guest_traced: bool,
}

impl SvmVcpu {
    /// Has the next instruction trap when it is done.
    pub(super) fn begin_step(&mut self) {
        let save = &mut self.vmcb_mut().save;
        let guest_traced = save.rflags & rflags::TF != 0;
        save.rflags |= rflags::TF;
        self.step = Some(Step { guest_traced });
    }

    /// Takes back the trap flag of a step, unless an IRET has just loaded the guest's own.
    pub(super) fn end_step(&mut self, executed: bool) -> Option<Step> {
        let step = self.step.take()?;
        let loaded_by_iret = executed && matches!(self.nmi, NmiBlocking::Returning { .. });
        if !step.guest_traced && !loaded_by_iret {
            self.vmcb_mut().save.rflags &= !rflags::TF;
        }
        Some(step)
    }

    /// The stepped instruction is done; the trap is the guest's if it traces itself, or met a
    /// breakpoint of its own.
    pub(super) fn finish_step(&mut self, step: Step) -> Exit {
        self.nmi = self.nmi.stepped();
        self.vmcb_mut().control.interrupt_shadow &= !1;
        if step.guest_traced {
            return decode::exit(&self.vmcb().control);
        }
        self.vmcb_mut().save.dr6 &= !dr6::SINGLE_STEP;
        if self.vmcb().save.dr6 & dr6::BREAKPOINTS != 0 {
            return decode::exit(&self.vmcb().control);
        }
        Exit::InterruptWindow
    }
}
