// SPDX-License-Identifier: MIT OR Apache-2.0
//! Echoes what comes in on the first serial port, a line for each byte.
//!
//! It polls at first; the letter `i` changes to interrupts, `p` back to polling, and `q` ends it.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::rt::console::{COM1, LINE_STATUS};
use crate::rt::cpu::{self, in8, out8};
use crate::rt::trap::{self, Frame};
use crate::rt::{apic, pic};

const DATA_READY: u8 = 1;
/// Input of the interrupt controllers to which COM1 is wired.
const INPUT: u32 = 4;
const VECTOR: u64 = 0x44;
const INTERRUPT_ENABLE: u16 = COM1 + 1;

/// The bytes that the handler took, in a ring, and how many they were.
static RING: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];
static HEAD: AtomicU32 = AtomicU32::new(0);

fn received(_: &mut Frame) {
    while in8(LINE_STATUS) & DATA_READY != 0 {
        let head = HEAD.fetch_add(1, Ordering::SeqCst);
        RING[head as usize % RING.len()].store(in8(COM1).into(), Ordering::SeqCst);
    }
    apic::end_of_interrupt();
}

/// Echoes until `q` comes.
pub fn run() -> u32 {
    pic::init();
    apic::enable(false);
    apic::route(INPUT, VECTOR as u32);
    trap::handle(VECTOR, Some(received));
    println!("console ready: p polls, i interrupts, q ends");
    let mut tail = 0;
    let mut interrupts = false;
    loop {
        let waiting = HEAD.load(Ordering::SeqCst) != tail;
        let byte = if interrupts || waiting { by_interrupt(&mut tail) } else { by_polling() };
        match byte {
            b'q' => break,
            b'p' => interrupts = false,
            b'i' => interrupts = true,
            _ => (),
        }
        out8(INTERRUPT_ENABLE, u8::from(interrupts));
        let how = if interrupts { "interrupt" } else { "polled" };
        println!("{how} {:?}", byte as char);
    }
    println!("console ends");
    0
}

fn by_polling() -> u8 {
    while in8(LINE_STATUS) & DATA_READY == 0 {
        core::hint::spin_loop();
    }
    in8(COM1)
}

fn by_interrupt(tail: &mut u32) -> u8 {
    while HEAD.load(Ordering::SeqCst) == *tail {
        cpu::wait_for_interrupt();
    }
    let byte = RING[*tail as usize % RING.len()].load(Ordering::SeqCst);
    *tail = tail.wrapping_add(1);
    byte as u8
}
