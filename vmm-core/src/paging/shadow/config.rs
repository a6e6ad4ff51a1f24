// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a VM's shadow paging is set up.

use crate::PAGE_SIZE;

/// Settings of shadow paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShadowConfig {
    /// Most bytes of shadow tables, whole pages; what is kept beside each table takes two and a
    /// half times as much. `None`: as [`default_budget`] says.
    pub budget_bytes: Option<u64>,
    /// Keep shadow tables when the guest loads CR3. Without, all are thrown away then, which is
    /// how shadow paging is done at its simplest; for comparison.
    pub cache: bool,
}

impl Default for ShadowConfig {
    fn default() -> Self {
        Self { budget_bytes: None, cache: true }
    }
}

/// Least number of tables that a budget has to hold: the roots that each vCPU may use, of which
/// PAE paging has four, and a path below one of them.
pub const fn least_tables(vcpus: u32) -> u64 {
    16 + 8 * vcpus as u64
}

/// The budget of a guest with so much memory: a sixty-fourth of it, which with 4 KiB pages maps
/// eight times its memory, but not less than 2 MiB and not more than 64.
pub const fn default_budget(memory_bytes: u64) -> u64 {
    const LEAST: u64 = 2 << 20;
    const MOST: u64 = 64 << 20;
    let share = memory_bytes / 64 / PAGE_SIZE * PAGE_SIZE;
    if share < LEAST {
        LEAST
    } else if share > MOST {
        MOST
    } else {
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_grow_with_the_guest_within_bounds() {
        assert_eq!(default_budget(1 << 20), 2 << 20);
        assert_eq!(default_budget(512 << 20), 8 << 20);
        assert_eq!(default_budget(1 << 40), 64 << 20);
        assert!(least_tables(64) * PAGE_SIZE <= 64 << 20);
    }
}
