// SPDX-License-Identifier: MIT OR Apache-2.0
//! Updates at random places of a large table, as the RandomAccess benchmark of the HPC Challenge
//! makes them: hardly one of them finds its translation in a TLB.

use super::arena::Arena;
use super::{ROUNDS, say};
use crate::samples::{Bench, FEW_WARM_UP};

/// One update for so many words of the table.
const SHARE: usize = 8;
/// Where the sequence of random numbers begins; any but zero.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// Measures and verifies it. `words` is a power of two.
pub fn run(bench: &Bench, arena: &mut Arena, words: usize) -> bool {
    let table = arena.take(words, 0_u64);
    for (index, word) in table.iter_mut().enumerate() {
        *word = index as u64;
    }
    bench.few("random-access", ROUNDS, || update(table));
    // A pass changes words by exclusive or, so a second one takes the changes back.
    if (ROUNDS + FEW_WARM_UP).is_multiple_of(2) {
        update(table);
    }
    say("random-access", table.iter().fold(0, |sum, word| sum.rotate_left(1) ^ word));
    update(table);
    table.iter().enumerate().all(|(index, &word)| word == index as u64)
}

/// One pass over the sequence of random numbers, which is the same each time.
fn update(table: &mut [u64]) {
    let mask = table.len() - 1;
    let mut random = SEED;
    for _ in 0..table.len() / SHARE {
        // Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8 (14), 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if let Some(word) = table.get_mut((random >> 32) as usize & mask) {
            *word ^= random;
        }
    }
}
