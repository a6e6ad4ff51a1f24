// SPDX-License-Identifier: MIT OR Apache-2.0
//! A vCPU that writes to a table through a translation of its own, while another has the table
//! shadowed.

use alloc::sync::Arc;

use super::long::{self, MAPS};
use crate::{
    Doorbell, GuestPhysAddr, VcpuLink,
    paging::{
        shadow::{FaultAction, mmu::Mmu},
        walk::AccessKind,
    },
};

/// A root, and what it leads to at each level.
const PATH: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
/// Another root, and tables of other levels that lead to the same last ones.
const OTHER: [u64; 3] = [0x5000, 0x6000, 0x7000];
const DATA: u64 = 0x8000;

/// What the other vCPU takes back lies in a table of this level, which is new to the MMU.
fn taken_back_at(level: usize) {
    let (host, memory) = long::memory(16);
    let put = |at: u64, value: u64| memory.write_u64(GuestPhysAddr::new(at), value).unwrap();
    for (table, below) in PATH.into_iter().zip(PATH.into_iter().skip(1).chain([DATA])) {
        put(table, below | MAPS);
    }
    // The first root has all tables of the guest mapped behind the data.
    for frame in 1..8 {
        put(PATH[3] + frame * 8, frame << 12 | MAPS);
    }
    // Above `level` and there the other root has tables of its own.
    for table in 0..=level {
        let below = if table < level { OTHER[table + 1] } else { PATH[table + 1] };
        put(OTHER[table], below | MAPS);
    }
    let written = OTHER[level];
    let links = [(); 2].map(|()| Arc::<VcpuLink>::default());
    let doorbells = links.iter().map(|link| Doorbell::new(host, link.clone())).collect();
    let space = long::space(PATH[0]);
    let mut mmu = Mmu::new(host, &memory, 64, space.features, true, doorbells).unwrap();
    let (read, write) = (long::access(AccessKind::Read), long::access(AccessKind::Write));

    // The other vCPU uses the data, and has written to the table.
    mmu.current = 1;
    mmu.load_root(&memory, &space).unwrap();
    assert_eq!(mmu.fault(&memory, &space, 0, read), Ok(FaultAction::Resume));
    assert_eq!(mmu.fault(&memory, &space, written, write), Ok(FaultAction::Resume));
    mmu.current = 0;
    let space = long::space(OTHER[0]);
    if level > 0 {
        mmu.load_root(&memory, &space).unwrap();
    }
    mmu.shootdown.enter(1);
    let shootdown = mmu.shootdown.clone();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !links[1].needs_attention() {
                std::thread::yield_now();
            }
            // Until it leaves, its translation allows this.
            put(written, 0);
            shootdown.leave(1);
        });
        assert_eq!(mmu.fault(&memory, &space, 0, read), Ok(FaultAction::Forward(0)));
    });
    super::invariants::check(&mmu, &memory);
}

#[test]
fn what_is_written_until_a_new_table_is_protected_counts() {
    for level in 0..OTHER.len() {
        taken_back_at(level);
    }
}
