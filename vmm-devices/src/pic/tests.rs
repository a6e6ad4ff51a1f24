// SPDX-License-Identifier: MIT OR Apache-2.0
use host_mock::MockHost;
use proptest::prelude::*;
use vmm_core::VcpuLink;

use super::*;
use crate::test_support::through_json;

/// A pair set up as Linux does: vectors 0x30 and 0x38, nothing masked.
fn pic() -> Arc<Pic> {
    let pic = Pic::new(Doorbell::disconnected());
    initialize(&pic, 0x01);
    pic
}

fn initialize(pic: &Pic, icw4: u8) {
    for (port, base, wiring) in [(0x20, 0x30, 4), (0xA0, 0x38, 2)] {
        pic.write_byte(port, 0x11);
        pic.write_byte(port + 1, base);
        pic.write_byte(port + 1, wiring);
        pic.write_byte(port + 1, icw4);
        pic.write_byte(port + 1, 0);
    }
}

fn edge(pic: &Pic, input: u32) {
    pic.set_input(input, true);
    pic.set_input(input, false);
}

fn acknowledged(pic: &Pic) -> Option<u8> {
    ExternalInterruptSource::acknowledge(pic).map(|v| v.0)
}

#[test]
fn an_edge_is_delivered_once() {
    let pic = pic();
    assert!(!pic.pending());
    assert_eq!(acknowledged(&pic), None);
    pic.set_input(4, true);
    pic.set_input(4, true);
    assert!(pic.pending());
    assert_eq!(acknowledged(&pic), Some(0x34));
    assert!(!pic.pending());
    pic.write_byte(0x20, 0x20);
    assert!(!pic.pending());
}

/// LINT0 may take the output for an edge, and the guest answer by polls.
#[test]
fn each_assertion_of_the_output_is_an_edge() {
    let pic = pic();
    assert!(!pic.take_rise());
    for _ in 0..2 {
        edge(&pic, 0);
        edge(&pic, 4);
        assert!(pic.take_rise());
        assert!(!pic.take_rise(), "taken");
        for answer in [0x80, 0x84] {
            pic.write_byte(0x20, 0x0C);
            assert_eq!(pic.read_byte(0x20), Some(answer));
            pic.write_byte(0x20, 0x20);
        }
        assert!(!pic.pending());
    }
}

#[test]
fn everything_is_masked_at_power_on() {
    let pic = Pic::new(Doorbell::disconnected());
    (0..16).for_each(|n| edge(&pic, n));
    assert!(!pic.pending());
    assert_eq!(pic.read_byte(0x21), Some(0xFF));
}

#[test]
fn higher_priority_nests_and_lower_waits_for_eoi() {
    let pic = pic();
    edge(&pic, 4);
    assert_eq!(acknowledged(&pic), Some(0x34));
    edge(&pic, 5);
    assert!(!pic.pending());
    edge(&pic, 1);
    assert_eq!(acknowledged(&pic), Some(0x31));
    pic.write_byte(0x20, 0x0B);
    assert_eq!(pic.read_byte(0x20), Some(0b0001_0010));
    pic.write_byte(0x20, 0x20);
    assert!(!pic.pending());
    pic.write_byte(0x20, 0x64);
    assert_eq!(acknowledged(&pic), Some(0x35));
}

#[test]
fn the_slave_comes_in_at_input_two() {
    let pic = pic();
    edge(&pic, 3);
    edge(&pic, 12);
    edge(&pic, 8);
    assert_eq!(acknowledged(&pic), Some(0x38));
    pic.write_byte(0xA0, 0x20);
    // The master still serves its input 2, so neither IRQ 12 nor IRQ 3 comes through.
    assert!(!pic.pending());
    pic.write_byte(0x20, 0x20);
    assert_eq!(acknowledged(&pic), Some(0x3C));
    pic.write_byte(0xA0, 0x20);
    pic.write_byte(0x20, 0x20);
    assert_eq!(acknowledged(&pic), Some(0x33));
}

#[test]
fn special_fully_nested_mode_lets_the_slave_nest() {
    let pic = pic();
    initialize(&pic, 0x11);
    edge(&pic, 12);
    assert_eq!(acknowledged(&pic), Some(0x3C));
    edge(&pic, 3);
    assert!(!pic.pending());
    edge(&pic, 8);
    assert_eq!(acknowledged(&pic), Some(0x38));
}

#[test]
fn level_triggered_requests_follow_the_line() {
    let pic = pic();
    pic.write_byte(0x4D1, 0xFF);
    assert_eq!(pic.read_byte(0x4D1), Some(0xDE));
    pic.set_input(9, true);
    assert_eq!(acknowledged(&pic), Some(0x39));
    pic.write_byte(0xA0, 0x20);
    pic.write_byte(0x20, 0x20);
    assert!(pic.pending());
    pic.set_input(9, false);
    assert!(!pic.pending());
}

#[test]
fn a_request_withdrawn_after_it_was_sampled_is_spurious() {
    let pic = pic();
    pic.write_byte(0x4D0, 0x20);
    pic.write_byte(0x4D1, 0x02);
    pic.set_input(5, true);
    assert!(pic.pending());
    pic.set_input(5, false);
    assert_eq!(acknowledged(&pic), Some(0x37));
    pic.write_byte(0x20, 0x0B);
    assert_eq!(pic.read_byte(0x20), Some(0));
    assert_eq!(acknowledged(&pic), None);

    pic.set_input(9, true);
    assert!(pic.pending());
    pic.set_input(9, false);
    assert_eq!(acknowledged(&pic), Some(0x3F));
    // The master did serve its input 2; the slave nothing.
    assert_eq!(pic.read_byte(0x20), Some(4));
    pic.write_byte(0xA0, 0x0B);
    assert_eq!(pic.read_byte(0xA0), Some(0));
}

#[test]
fn masking_takes_a_request_back_without_a_spurious_interrupt() {
    let pic = pic();
    edge(&pic, 4);
    assert!(pic.pending());
    pic.write_byte(0x21, 0x10);
    assert!(!pic.pending());
    assert_eq!(acknowledged(&pic), None);
    pic.write_byte(0x21, 0);
    assert_eq!(acknowledged(&pic), Some(0x34));
}

#[test]
fn rotation_moves_the_lowest_priority() {
    let pic = pic();
    edge(&pic, 0);
    assert_eq!(acknowledged(&pic), Some(0x30));
    pic.write_byte(0x20, 0xA0);
    edge(&pic, 0);
    edge(&pic, 1);
    assert_eq!(acknowledged(&pic), Some(0x31));
    pic.write_byte(0x20, 0xE1);
    pic.write_byte(0x20, 0xC5);
    edge(&pic, 6);
    assert_eq!(acknowledged(&pic), Some(0x36));
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    let pic = pic();
    initialize(&pic, 0x03);
    pic.write_byte(0x20, 0x80);
    edge(&pic, 3);
    edge(&pic, 4);
    assert_eq!(acknowledged(&pic), Some(0x33));
    edge(&pic, 3);
    assert_eq!(acknowledged(&pic), Some(0x34));
    assert_eq!(acknowledged(&pic), Some(0x33));
}

#[test]
fn special_mask_mode_lets_lower_priorities_through() {
    let pic = pic();
    edge(&pic, 1);
    assert_eq!(acknowledged(&pic), Some(0x31));
    pic.write_byte(0x21, 0x02);
    edge(&pic, 6);
    assert!(!pic.pending());
    pic.write_byte(0x20, 0x68);
    assert_eq!(acknowledged(&pic), Some(0x36));
    pic.write_byte(0x20, 0x20);
    pic.write_byte(0x20, 0x0B);
    assert_eq!(pic.read_byte(0x20), Some(0x02));
}

#[test]
fn a_poll_acknowledges() {
    let pic = pic();
    pic.write_byte(0x20, 0x0C);
    assert_eq!(pic.read_byte(0x20), Some(0));
    edge(&pic, 6);
    pic.write_byte(0x20, 0x0C);
    assert_eq!(pic.read_byte(0x20), Some(0x86));
    assert!(!pic.pending());
}

#[test]
fn initialization_forgets_edges_and_wants_a_new_one() {
    let pic = pic();
    pic.set_input(4, true);
    initialize(&pic, 0x01);
    assert!(!pic.pending());
    pic.set_input(4, true);
    assert!(!pic.pending());
    edge(&pic, 4);
    edge(&pic, 4);
    assert!(pic.pending());
}

#[test]
fn the_doorbell_rings_when_intr_rises() {
    let host = MockHost::leak(1);
    let link = Arc::new(VcpuLink::default());
    let pic = Pic::new(Doorbell::new(host, link.clone()));
    initialize(&pic, 0x01);
    assert!(!link.take_attention());
    edge(&pic, 4);
    assert!(link.take_attention());
    edge(&pic, 1);
    assert!(!link.take_attention());
}

#[test]
fn linux_probe_finds_the_mask_register() {
    let pic = Pic::new(Doorbell::disconnected());
    pic.write_byte(0xA1, 0xFF);
    pic.write_byte(0x21, 0xFB);
    assert_eq!(pic.read_byte(0x21), Some(0xFB));
}

#[test]
fn a_restored_pair_goes_on() {
    let pic = pic();
    edge(&pic, 4);
    let other = Pic::new(Doorbell::disconnected());
    other.restore(through_json(&pic.save()));
    assert!(other.pending());
    assert_eq!(acknowledged(&other), Some(0x34));
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics(
        steps in prop::collection::vec((0u8..4, 0u16..8, any::<u8>()), 0..200)
    ) {
        const PORTS: [u16; 8] = [0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0x22, 0xFFFF];
        let pic = pic();
        for (what, port, value) in steps {
            let port = PORTS[usize::from(port)];
            match what {
                0 => drop(pic.read_byte(port)),
                1 => drop(pic.write_byte(port, value)),
                2 => pic.set_input(u32::from(value & 0x1F), value & 0x20 != 0),
                _ => {
                    let pending = pic.pending();
                    prop_assert_eq!(pending, ExternalInterruptSource::acknowledge(&*pic).is_some());
                }
            }
        }
    }
}
