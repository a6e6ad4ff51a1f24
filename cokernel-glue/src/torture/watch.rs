// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of the co-kernel must stay as it is, whatever guests do.

use alloc::{format, string::String};

use cokernel::memory;

use super::canaries::Canaries;

/// Watches memory that no guest may change.
pub struct Watch {
    canaries: Canaries,
    image: u64,
    address_space: u64,
    checks: u64,
}

/// A sum in which every bit and the order of the words count (FNV-1a, by words).
fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23)
}

/// The sum of the co-kernel's code and constants.
fn image_sum() -> u64 {
    memory::constant_words().fold(0, mix)
}

/// The sum of all translations of the co-kernel, and of what each allows.
fn address_space_sum() -> u64 {
    let mut sum = 0;
    memory::for_each_page(&mut |leaf| {
        let flags = u64::from(leaf.writable) | u64::from(leaf.executable) << 1;
        sum = [leaf.virt, leaf.phys.0, leaf.size, flags].into_iter().fold(sum, mix);
    });
    sum
}

impl Watch {
    /// Begins to watch, with at most so many bytes of free memory.
    pub fn begin(most: u64) -> Self {
        let canaries = Canaries::take(most);
        Self { canaries, image: image_sum(), address_space: address_space_sum(), checks: 0 }
    }

    /// How much free memory is watched, in bytes.
    pub fn bytes(&self) -> u64 {
        self.canaries.bytes()
    }

    /// How often all was as it was.
    pub fn checks(&self) -> u64 {
        self.checks
    }

    /// Looks at the image, the address space and a part of the memory.
    ///
    /// # Errors
    /// What was changed.
    pub fn check(&mut self) -> Result<(), String> {
        let changed = self.canaries.glance();
        self.judge(changed)
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// What was changed.
    pub fn check_all(&mut self) -> Result<(), String> {
        let changed = self.canaries.look();
        self.judge(changed)
    }

    fn judge(&mut self, changed: Option<cokernel::PhysAddr>) -> Result<(), String> {
        if let Some(address) = changed {
            return Err(format!("memory that belongs to nobody was changed at {address}"));
        }
        if image_sum() != self.image {
            return Err("the co-kernel's code or constants were changed".into());
        }
        if address_space_sum() != self.address_space {
            return Err("the co-kernel's page tables were changed".into());
        }
        self.checks += 1;
        Ok(())
    }

    /// Does damage of the kind that is to be noticed.
    #[cfg(feature = "fault-injection")]
    pub fn damage(&self, damage: wire::Damage) {
        match damage {
            wire::Damage::Canary => self.canaries.damage(),
            wire::Damage::Image => super::damage::image(),
            wire::Damage::AddressSpace => super::damage::address_space(),
        }
    }
}
