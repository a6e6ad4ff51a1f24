// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console stream.

use alloc::sync::Arc;

use cokernel::{
    console::console,
    smp::{idle_while, kick},
};

/// Ends the echo.
const END_OF_TRANSMISSION: u8 = 4;

/// Sends back whatever arrives, until the end.
pub(crate) fn echo() {
    let Some(console) = console() else {
        log::error!("FAILED: there is no console");
        return;
    };
    console.notify(Some(Arc::new(|| kick(0))));
    let (mut total, mut sum, mut waits) = (0u64, 0u64, 0u64);
    let mut buffer = [0; 50];
    loop {
        let mut count = 0;
        idle_while(&mut || {
            count = console.read(&mut buffer);
            waits += u64::from(count == 0);
            count == 0
        });
        let bytes = &buffer[..count];
        let end = bytes.iter().position(|b| *b == END_OF_TRANSMISSION);
        let bytes = &bytes[..end.unwrap_or(count)];
        console.write(bytes);
        total += bytes.len() as u64;
        sum += bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        if end.is_some() {
            break;
        }
    }
    console.notify(None);
    log::info!("console: {total} bytes, sum {sum}, {waits} waits");
}
