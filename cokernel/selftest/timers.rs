// SPDX-License-Identifier: MIT OR Apache-2.0
//! One-shot timers.

use core::arch::asm;

use cokernel::{
    smp::idle_while,
    time::{arm, cancel, tsc, tsc_hz},
};

use crate::{Outcome, Test, ensure};

pub(crate) const TESTS: &[Test] = &[
    ("a deadline is kept", deadline_is_kept),
    ("a past deadline fires at once", past_deadline),
    ("a cancelled deadline does not fire", cancelled_deadline),
    ("a new deadline replaces the old one", replaced_deadline),
    ("interrupts preserve registers", registers_survive),
];

pub(crate) const LONG: &[Test] = &[("a deadline beyond the counter's range", far_deadline)];

fn milliseconds(count: u64) -> u64 {
    tsc_hz() / 1000 * count
}

/// Arms the timer in turn for each of `deadlines`, with interrupts disabled, and waits for the
/// first interrupt; returns the TSC then.
fn interrupted_at(deadlines: &[u64]) -> u64 {
    let mut looks = 0;
    idle_while(&mut || {
        looks += 1;
        if looks == 1 {
            deadlines.iter().for_each(|deadline| arm(*deadline));
        }
        looks == 1
    });
    tsc()
}

fn deadline_is_kept() -> Outcome {
    let mut worst = 0;
    for length in [1, 2, 5, 10] {
        let deadline = tsc() + milliseconds(length);
        arm(deadline);
        idle_while(&mut || tsc() < deadline);
        worst = worst.max(tsc() - deadline);
    }
    log::debug!("latest timer: {} us", worst / (tsc_hz() / 1_000_000));
    ensure(worst < milliseconds(200), "more than 200 ms late")
}

fn past_deadline() -> Outcome {
    for deadline in [0, 1, tsc() - 1] {
        let start = tsc();
        let end = interrupted_at(&[deadline]);
        ensure(end - start < milliseconds(200), "more than 200 ms late")?;
    }
    Ok(())
}

fn cancelled_deadline() -> Outcome {
    let start = tsc();
    arm(start + milliseconds(20));
    cancel();
    while tsc() < start + milliseconds(40) {
        core::hint::spin_loop();
    }
    // Had the first one come, it would not end this wait, whose own timer comes later.
    let deadline = tsc() + milliseconds(20);
    ensure(interrupted_at(&[deadline]) >= deadline, "interrupted too early")
}

fn replaced_deadline() -> Outcome {
    let start = tsc();
    let (sooner, later) = (start + milliseconds(5), start + milliseconds(20));
    ensure(interrupted_at(&[sooner, later]) >= later, "the old deadline fired")?;
    let deadline = tsc() + milliseconds(5);
    let end = interrupted_at(&[deadline + milliseconds(60_000), deadline]);
    ensure(end >= deadline && end < deadline + milliseconds(200), "the new deadline is late")
}

fn far_deadline() -> Outcome {
    let deadline = tsc() + milliseconds(5000);
    arm(deadline);
    idle_while(&mut || tsc() < deadline);
    ensure(tsc() - deadline < milliseconds(200), "more than 200 ms late")
}

/// Spins on known register values while the timer interrupts.
fn registers_survive() -> Outcome {
    for _ in 0..20 {
        arm(tsc() + milliseconds(1));
        let end = tsc() + milliseconds(2);
        while tsc() < end {
            let sum: u64;
            // SAFETY: computes in the registers it declares.
            unsafe {
                asm!(
                    "mov rcx, 2000",
                    "2:",
                    "dec rcx",
                    "jnz 2b",
                    "lea rax, [rdx + rsi]",
                    "add rax, rdi",
                    "add rax, r8",
                    "add rax, r9",
                    "add rax, r10",
                    "add rax, r11",
                    "add rax, r12",
                    "add rax, r13",
                    "add rax, r14",
                    "add rax, r15",
                    in("rdx") 1u64, in("rsi") 1u64 << 1, in("rdi") 1u64 << 2,
                    in("r8") 1u64 << 3, in("r9") 1u64 << 4, in("r10") 1u64 << 5,
                    in("r11") 1u64 << 6, in("r12") 1u64 << 7, in("r13") 1u64 << 8,
                    in("r14") 1u64 << 9, in("r15") 1u64 << 10,
                    out("rax") sum, out("rcx") _, options(nomem, nostack),
                );
            }
            ensure(sum == (1 << 11) - 1, "a register changed")?;
        }
    }
    Ok(())
}
