// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for an interrupt without losing one.

use crate::cpu::interrupt_flag;

/// Waits on this CPU, with interrupts enabled, for as long as `idle` says so.
///
/// `idle` is evaluated again after every interrupt, and with interrupts disabled between its
/// evaluation and the wait, so that neither a kick nor the timer is lost. The interrupt flag
/// is afterwards as it was before.
pub fn idle_while(idle: &mut dyn FnMut() -> bool) {
    let _restore = interrupt_flag::disable();
    while idle() {
        interrupt_flag::set_and_halt();
        interrupt_flag::clear();
    }
}
