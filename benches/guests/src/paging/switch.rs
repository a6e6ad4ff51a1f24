// SPDX-License-Identifier: MIT OR Apache-2.0
//! CR3 is loaded, again and again.

use super::space::{Space, read};
use crate::samples::{Bench, ticks};

/// Pages of each space that are read before it is left.
const PAGES: usize = 16;

/// Measures it: with the same value, with two, and with many.
pub fn run(bench: &Bench) {
    between::<1>(bench, "switch-same");
    between::<2>(bench, "switch-2");
    between::<32>(bench, "switch-32");
}

fn between<const SPACES: usize>(bench: &Bench, name: &str) {
    let home = Space::new();
    let spaces = [(); SPACES].map(|()| {
        let space = Space::new();
        space.fill(PAGES);
        space
    });
    bench.sample(name, |round| {
        let space = &spaces[round % SPACES];
        ticks(|| {
            space.enter();
            read(PAGES);
        })
    });
    home.enter();
    for space in spaces {
        space.end(PAGES);
    }
}
