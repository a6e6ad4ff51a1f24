// SPDX-License-Identifier: MIT OR Apache-2.0
//! What several devices' tests need.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use serde::{Serialize, de::DeserializeOwned};
use vmm_core::{InterruptInputs, IrqLine};

/// The far end of an interrupt line: its level, and how often it rose.
#[derive(Default)]
pub(crate) struct LineProbe {
    level: AtomicBool,
    rises: AtomicU32,
}

impl LineProbe {
    /// The line to give to a device.
    pub fn line(self: &Arc<Self>) -> IrqLine {
        IrqLine::new(self.clone(), 0)
    }

    pub fn asserted(&self) -> bool {
        self.level.load(Ordering::SeqCst)
    }

    /// Number of rising edges since the last call.
    pub fn take_rises(&self) -> u32 {
        self.rises.swap(0, Ordering::SeqCst)
    }
}

impl InterruptInputs for LineProbe {
    fn set_input(&self, _: u32, asserted: bool) {
        let before = self.level.swap(asserted, Ordering::SeqCst);
        self.rises.fetch_add(u32::from(asserted && !before), Ordering::SeqCst);
    }
}

/// Writes a state down and reads it again.
pub(crate) fn through_json<T: Serialize + DeserializeOwned>(state: &T) -> T {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}
