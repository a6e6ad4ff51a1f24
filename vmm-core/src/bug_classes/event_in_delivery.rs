// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events that arrive while another is delivered: none is lost, none comes twice, and what cannot
//! end in a handler ends the VM and not the host.

use crate::{
    Event, Exit,
    state::{Exception, Vector},
    vcpu::tests::machine::machine,
};

/// What the second exception makes of the first (Intel SDM vol. 3, tables 6-4 and 6-5): benign,
/// contributory, page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Benign,
    Contributory,
    PageFault,
}

const fn class(vector: u8) -> Class {
    match vector {
        0 | 10 | 11 | 12 | 13 => Class::Contributory,
        14 => Class::PageFault,
        _ => Class::Benign,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Serially,
    DoubleFault,
    Shutdown,
}

const fn expected(first: u8, second: u8) -> Expected {
    match (first, class(first), class(second)) {
        (8, _, Class::Contributory | Class::PageFault) => Expected::Shutdown,
        (_, Class::Contributory, Class::Contributory)
        | (_, Class::PageFault, Class::Contributory | Class::PageFault) => Expected::DoubleFault,
        _ => Expected::Serially,
    }
}

/// Exceptions that a CPU raises while it delivers another.
const DURING_DELIVERY: [u8; 6] = [6, 10, 11, 12, 13, 14];

fn exception(vector: u8) -> Exception {
    let has_code = matches!(vector, 8 | 10..=14 | 17);
    Exception {
        vector: Vector(vector),
        error_code: has_code.then_some(0),
        fault_address: (vector == 14).then_some(0x5000),
    }
}

/// Runs a guest whose delivery of `first` is cut short by an exit that raises `second`; what was
/// delivered next, if the VM lived.
fn cut_short(first: Event, second: u8) -> Option<Event> {
    let mut machine = machine();
    let mut exits = 0;
    machine.run(Box::new(move |registers, _| {
        exits += 1;
        if exits > 1 {
            return Exit::Shutdown;
        }
        registers.interrupted = Some(first);
        Exit::Exception(exception(second))
    }));
    machine.registers().delivered.first().copied()
}

#[test]
fn two_exceptions_make_what_the_manual_says() {
    for first in (0..20).filter(|vector| !matches!(vector, 2 | 9 | 15)) {
        for second in DURING_DELIVERY {
            let delivered = cut_short(Event::Exception(exception(first)), second);
            let vector = match delivered {
                Some(Event::Exception(found)) => Some(found.vector.0),
                None => None,
                Some(other) => panic!("{other:?}"),
            };
            let right = match expected(first, second) {
                Expected::Serially => Some(second),
                Expected::DoubleFault => Some(8),
                Expected::Shutdown => None,
            };
            assert_eq!(vector, right, "{second} during the delivery of {first}");
        }
    }
}

#[test]
fn a_fault_takes_the_place_of_the_event_it_cut_short() {
    for first in [Event::Interrupt(Vector(0x30)), Event::Nmi] {
        for second in DURING_DELIVERY {
            let delivered = cut_short(first, second);
            let fault = Event::Exception(exception(second));
            assert_eq!(delivered, Some(fault), "{second} during {first:?}");
        }
    }
}

#[test]
fn an_event_that_was_cut_short_comes_again_once() {
    for event in [
        Event::Interrupt(Vector(0xFE)),
        Event::Nmi,
        Event::Exception(exception(13)),
        Event::Exception(exception(8)),
    ] {
        let mut machine = machine();
        let mut exits = 0;
        machine.run(Box::new(move |registers, _| {
            exits += 1;
            match exits {
                1..=3 => registers.interrupted = Some(event),
                4 => {}
                _ => return Exit::Shutdown,
            }
            Exit::HostInterrupt
        }));
        assert_eq!(machine.registers().delivered, [event; 3], "{event:?}");
    }
}
