// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocking of NMIs from their delivery to the end of their handler's IRET.
//!
//! SVM without virtual NMIs tells only that an IRET is about to execute. If another NMI waits
//! at that moment, the IRET is single-stepped; otherwise the block ends when the guest is
//! next seen elsewhere.

/// How far the guest is through an NMI handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NmiBlocking {
    /// Not in a handler.
    Unblocked,
    /// In a handler; IRET is intercepted.
    Blocked,
    /// The IRET at `rip` is about to execute.
    Returning {
        /// Address of the IRET.
        rip: u64,
    },
}

impl NmiBlocking {
    /// True while no NMI may be delivered.
    #[inline]
    pub fn is_blocked(self) -> bool {
        self != Self::Unblocked
    }

    /// The state after an exit before the IRET at `rip`.
    pub fn iret_begins(self, rip: u64) -> Self {
        match self {
            Self::Blocked => Self::Returning { rip },
            other => other,
        }
    }

    /// The state after the instruction at which the guest was is known to be executed.
    pub fn stepped(self) -> Self {
        match self {
            Self::Returning { .. } => Self::Unblocked,
            other => other,
        }
    }

    /// Notes that the guest was seen at `rip`: an IRET that was about to execute there has
    /// been executed if it is elsewhere now.
    pub fn guest_moved_to(&mut self, rip: u64) {
        if matches!(*self, Self::Returning { rip: iret } if iret != rip) {
            *self = Self::Unblocked;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_ends_when_the_guest_has_left_the_iret() {
        let mut state = NmiBlocking::Blocked;
        state.guest_moved_to(0x2000);
        assert!(state.is_blocked());
        state = state.iret_begins(0x1000);
        state.guest_moved_to(0x1000);
        assert!(state.is_blocked(), "an exit before the IRET was executed");
        state.guest_moved_to(0x2000);
        assert!(!state.is_blocked());
        assert_eq!(NmiBlocking::Unblocked.iret_begins(0), NmiBlocking::Unblocked);
        assert_eq!(NmiBlocking::Blocked.stepped(), NmiBlocking::Blocked);
        assert_eq!(NmiBlocking::Returning { rip: 1 }.stepped(), NmiBlocking::Unblocked);
    }
}
