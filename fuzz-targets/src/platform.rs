// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices of a PC, driven through all that they have claimed.

use arbitrary::{Arbitrary, Unstructured};

use crate::pc::{Pc, Step};

/// Takes the steps that `input` says, until the guest ends itself.
pub fn run(input: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let mut pc = Pc::new();
    for step in &steps {
        pc.take(step);
        if pc.has_ended() {
            return;
        }
    }
}
