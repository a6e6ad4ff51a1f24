// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel does with address spaces, over and over: makes and ends them, switches between
//! them, touches pages, takes translations back.
//!
//! All of it is the guest's own business with nested paging. With shadow paging each loop shows
//! what the VMM has to do for it.

mod invalidate;
mod pages;
mod process;
mod space;
mod switch;
mod touch;

use crate::samples::Bench;

/// Measures everything; there is nothing that could fail.
pub fn run() -> u32 {
    let bench = Bench::new();
    // What a VM leaves for that does nothing of all this.
    bench.operation("nothing", || {});
    process::run(&bench);
    switch::run(&bench);
    touch::run(&bench);
    invalidate::run(&bench);
    0
}
