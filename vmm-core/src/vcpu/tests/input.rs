// SPDX-License-Identifier: MIT OR Apache-2.0
//! Input that arrives at the host while the vCPU is between two entries.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use host_iface::InputListener;

use super::machine::machine_with;
use crate::{Doorbell, Exit, HostEventClient, hooks::HypercallHook, state::Gpr};

/// The hypercall during which bytes arrive.
const TYPE: u32 = 0x100;

/// A device that counts how often it looked for input.
#[derive(Default)]
struct Receiver(AtomicU32);

impl HostEventClient for Receiver {
    fn host_event(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A host's console that receives bytes while the VMM deals with an exit.
struct Typist(Doorbell);

impl HypercallHook for Typist {
    fn hypercall(&self, _: u32, _: [u64; 4]) -> u64 {
        self.0.input_arrived();
        0
    }
}

#[test]
fn a_device_looks_for_input_before_the_next_entry() {
    let receiver = Arc::<Receiver>::default();
    let mut machine = machine_with(1, |builder| {
        builder.on_host_event(receiver.clone());
        let typist = Arc::new(Typist(builder.doorbell()));
        builder.hooks().add_hypercalls(TYPE..=TYPE, typist);
    });
    machine.set_gpr(Gpr::Rax, TYPE.into());
    let mut looks = Vec::new();
    machine.run(Box::new(move |_, _| {
        looks.push(receiver.0.load(Ordering::SeqCst));
        if looks.len() < 2 {
            return Exit::Hypercall;
        }
        assert_eq!(looks, [0, 1]);
        Exit::Shutdown
    }));
    assert!(machine.host.take_kicks().is_empty(), "the vCPU was not inside");
}
