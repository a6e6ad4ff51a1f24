// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shootdown by itself. `tests/interleavings.rs` tries it in many interleavings.

use crate::paging::shadow::shootdown::Shootdown;

#[test]
fn who_is_outside_flushes_when_it_enters() {
    let shootdown = Shootdown::new(2);
    assert!(!shootdown.enter(0));
    shootdown.leave(0);
    shootdown.flush(1, |_| panic!("nobody is inside"), || {});
    assert!(shootdown.enter(0) && shootdown.enter(1));
    shootdown.leave(0);
    assert!(!shootdown.enter(0), "once is enough");
}

#[test]
fn who_is_outdated_flushes_alone() {
    let shootdown = Shootdown::new(2);
    shootdown.outdate(1);
    assert!(!shootdown.enter(0) && shootdown.enter(1));
    shootdown.leave(1);
    assert!(!shootdown.enter(1), "once is enough");
}

#[test]
fn who_is_inside_is_rung_and_waited_for() {
    let shootdown = Shootdown::new(3);
    shootdown.enter(1);
    shootdown.enter(2);
    let mut rung = Vec::new();
    let patience = core::cell::Cell::new(0);
    shootdown.flush(
        0,
        |vcpu| {
            rung.push(vcpu);
            patience.set(3);
        },
        || {
            patience.set(patience.get() - 1);
            if patience.get() == 0 {
                shootdown.leave(1);
                shootdown.leave(2);
            }
        },
    );
    assert_eq!(rung, [1], "the other had left by then");
}
