// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console of guests on the mock host.

use std::sync::{Arc, Mutex};

use host_iface::{HostConsole, InputListener};

use crate::lock;

/// The mock console: what was written, and what is there to read.
#[derive(Default)]
pub struct MockConsole {
    output: Mutex<Vec<u8>>,
    input: Mutex<Vec<u8>>,
    listener: Mutex<Option<Arc<dyn InputListener>>>,
}

impl MockConsole {
    /// Takes what was written.
    pub fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.output))
    }

    /// Adds bytes to read, and tells who wants to know.
    pub fn type_in(&self, bytes: &[u8]) {
        lock(&self.input).extend_from_slice(bytes);
        if let Some(listener) = &*lock(&self.listener) {
            listener.input_arrived();
        }
    }

    /// True if somebody wants to know of input.
    pub fn has_listener(&self) -> bool {
        lock(&self.listener).is_some()
    }
}

impl HostConsole for MockConsole {
    fn write(&self, bytes: &[u8]) {
        lock(&self.output).extend_from_slice(bytes);
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        let mut input = lock(&self.input);
        let count = input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&input[..count]);
        input.drain(..count);
        count
    }

    fn notify(&self, listener: Option<Arc<dyn InputListener>>) {
        *lock(&self.listener) = listener;
    }
}
