// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work that leaves a guest no reason to exit: a sparse solver, memory bandwidth, random access.
//!
//! Interrupts are off and no timer is armed, so a guest under a VMM that adds nothing executes
//! the instructions of the bare machine and no others. Each part verifies its results, and says
//! them as bits, by which a host can see that all machines came to the same:
//!
//! ```text
//! check NAME HEX
//! ```

mod arena;
mod kernels;
mod matrix;
mod random;
mod solver;
mod stream;

use bare_metal::rt::console::print_line;
use bare_metal::rt::start_info::has_word;

use crate::samples::Bench;
use arena::Arena;

/// How much is computed.
struct Size {
    /// Edge of the solver's cube, in points; even, as kernels take two numbers at a time.
    edge: usize,
    /// The solver's steps.
    steps: usize,
    /// Numbers in each of the arrays of [`stream`].
    stream: usize,
    /// Words in the table of [`random`], a power of two.
    table: usize,
}

/// 2.4 MB of matrix, 24 MB of arrays, 64 MiB of table.
const FULL: Size = Size { edge: 20, steps: 32, stream: 1_000_000, table: 1 << 23 };

/// A fraction of it, by the word `brief`: enough to see that nothing is added.
const BRIEF: Size = Size { edge: 8, steps: 30, stream: 20_000, table: 1 << 14 };

/// Rounds of each operation.
const ROUNDS: usize = 5;

/// Measures everything; the result is the number of parts whose results are wrong.
pub fn run() -> u32 {
    let size = if has_word("brief") { BRIEF } else { FULL };
    let bench = Bench::new();
    let mut arena = Arena::all();
    let right = [
        solver::run(&bench, &mut arena, size.edge, size.steps),
        stream::run(&bench, &mut arena, size.stream),
        random::run(&bench, &mut arena, size.table),
    ];
    right.into_iter().map(|right| u32::from(!right)).sum()
}

/// Says the bits of a result.
fn say(name: &str, bits: u64) {
    print_line(format_args!("check {name} {bits:016x}"));
}
