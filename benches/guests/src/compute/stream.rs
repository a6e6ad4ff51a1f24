// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory bandwidth by the four operations of the STREAM benchmark, each on whole arrays.

use super::arena::Arena;
use super::{ROUNDS, kernels, say};
use crate::samples::Bench;

const FACTOR: f64 = 3.0;

/// Measures and verifies it.
pub fn run(bench: &Bench, arena: &mut Arena, count: usize) -> bool {
    let (a, b, c) = (arena.take(count, 1.0), arena.take(count, 2.0), arena.take(count, 0.0));
    // Each can be repeated without changing what comes of it.
    bench.few("stream-copy", ROUNDS, || kernels::copy(a, c));
    bench.few("stream-scale", ROUNDS, || kernels::scale(FACTOR, c, b));
    bench.few("stream-add", ROUNDS, || kernels::add(a, b, c));
    bench.few("stream-triad", ROUNDS, || kernels::triad(FACTOR, b, c, a));
    say("stream", kernels::dot(a, b).to_bits());
    // Small integers have no rounding.
    let all = |array: &[f64], value: f64| array.iter().all(|number| *number == value);
    all(b, FACTOR) && all(c, 1.0 + FACTOR) && all(a, FACTOR + FACTOR * (1.0 + FACTOR))
}
