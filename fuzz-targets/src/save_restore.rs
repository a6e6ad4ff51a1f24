// SPDX-License-Identifier: MIT OR Apache-2.0
//! Saved states of devices: any that can be read can be restored and run on, and what is restored
//! is what is saved again.

use std::fmt::Debug;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use serde::de::DeserializeOwned;
use vmm_core::{
    Doorbell,
    apic::{ApicInbox, BusMember, LocalApic, LocalApicBus, LocalApicConfig},
};

use crate::host::host;
use crate::pc::{Pc, Step};

/// The first byte of an input chooses the device; a state of it follows, and what is done then.
pub fn run(input: &[u8]) {
    let Some((device, bytes)) = input.split_first() else { return };
    let mut pc = Pc::new();
    let platform = &pc.platform;
    macro_rules! restored {
        ($device:ident) => {
            restore(bytes, |state| platform.$device.restore(state), || platform.$device.save())
        };
    }
    let rest = match device % 13 {
        0 => restored!(pic),
        1 => restored!(io_apic),
        2 => restored!(pit),
        3 => restored!(rtc),
        4 => restored!(hpet),
        5 => restored!(com1),
        6 => restored!(config_ports),
        7 => restored!(pm),
        8 => restored!(reset_control),
        9 => restored!(port_a),
        10 => restored!(keyboard),
        11 => {
            let bridge = &platform.host_bridge;
            restore(bytes, |state| bridge.restore(&state), || bridge.save())
        }
        _ => return local_apic(bytes),
    };
    let Some(rest) = rest else { return };
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(rest)) else { return };
    for step in &steps {
        pc.take(step);
        if pc.has_ended() {
            return;
        }
    }
}

/// Restores the state at the start of `bytes`, if there is one, and returns what is behind it.
fn restore<S: DeserializeOwned + Clone + Debug + PartialEq>(
    bytes: &[u8],
    restore: impl Fn(S),
    save: impl Fn() -> S,
) -> Option<&[u8]> {
    let (state, rest) = postcard::take_from_bytes::<S>(bytes).ok()?;
    restore(state);
    let saved = save();
    restore(saved.clone());
    assert_eq!(save(), saved, "state is lost");
    Some(rest)
}

fn local_apic(bytes: &[u8]) {
    let Ok((state, rest)) = postcard::take_from_bytes(bytes) else { return };
    let inbox = Arc::new(ApicInbox::new());
    let member = BusMember { inbox: inbox.clone(), doorbell: Doorbell::disconnected() };
    let mut apic = LocalApic::new(LocalApicConfig {
        host: host(),
        bus: LocalApicBus::new(vec![member]),
        inbox,
        id: 0,
        bootstrap: true,
        directed_eoi: true,
        eoi_observers: Arc::new([]),
    });
    apic.restore(&state);
    let saved = apic.save();
    apic.restore(&saved);
    assert_eq!(apic.save(), saved, "state is lost");
    for register in rest {
        let _ = apic.read_msr(0x800 + u32::from(*register));
        if let Some(vector) = apic.pending_vector() {
            apic.accept(vector);
        }
        pass(u64::from(*register) << 10, &mut apic);
    }
}

fn pass(ticks: u64, apic: &mut LocalApic) {
    host().advance(ticks);
    apic.expire(host_iface::Host::tsc(host()));
}
