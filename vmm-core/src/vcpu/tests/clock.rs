// SPDX-License-Identifier: MIT OR Apache-2.0
//! kvmclock's pages, which the VMM writes, where the guest has a page table.

use host_iface::{Host, HostPhysAddr};

use super::machine::{Machine, machine_with};
use crate::{
    Exit,
    msr::index::{KVM_SYSTEM_TIME, KVM_WALL_CLOCK, TSC},
    paging::shadow::ShadowConfig,
    state::{ControlRegisters, cr0, cr4, efer},
    vm::PagingChoice,
};

/// Present, writable, accessed and dirty.
const MAPS: u64 = 0x63;
/// The guest's tables, from the root down; the last one holds what the clock overwrites.
const TABLES: [u64; 4] = [0x8000, 0x9000, 0xA000, 0xB000];
const LAST: u64 = TABLES[3];
/// Where that table shows a page, by its first entry.
const MAPPED: u64 = 0x4000;

/// A guest in 64-bit mode on shadow tables, which the first page is mapped by.
fn machine() -> Machine {
    let mut machine = machine_with(1, |builder| {
        builder.set_paging(PagingChoice::Shadow, ShadowConfig::default());
    });
    for pair in TABLES.windows(2) {
        machine.poke(pair[0], &(pair[1] | MAPS).to_le_bytes());
    }
    machine.registers().control = ControlRegisters {
        cr0: cr0::PE | cr0::PG | cr0::WP,
        cr3: TABLES[0],
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        ..ControlRegisters::default()
    };
    let vcpu = machine.vcpu();
    vcpu.shadow.root_is_old = true;
    vcpu.renew_shadow_root();
    machine.map();
    machine
}

impl Machine {
    /// Maps the page anew, and uses it.
    fn map(&mut self) {
        const WRITE: u32 = 2;
        let table = crate::GuestPhysAddr::new(LAST);
        let live = self.vcpu().core.live_memory(0);
        live.write_plain(table, &(MAPPED | MAPS)).unwrap();
        self.handle(Exit::PageFault { address: 0, error_code: WRITE }).unwrap();
        assert_ne!(self.translation(), None, "it is mapped, and written to");
    }

    /// What the CPU finds at linear address zero: it walks what the shadow MMU has made.
    fn translation(&mut self) -> Option<u64> {
        const PRESENT: u64 = 1;
        const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
        let host = self.host;
        let mut table = self.registers().shadow_root?;
        for _ in TABLES {
            // SAFETY: a root and what its entries lead to are tables of the MMU, which nobody
            // else uses meanwhile.
            let entry = unsafe { host.phys_to_virt(table).cast::<u64>().read() };
            table = HostPhysAddr::new(entry & ADDRESS);
            if entry & PRESENT == 0 {
                return None;
            }
        }
        Some(table.as_u64())
    }

    fn write_msr(&mut self, msr: u32, value: u64) {
        let exit = self.registers().wrmsr(msr, value);
        self.handle(exit).unwrap();
    }
}

/// The version that the clock's page begins with is even afterwards: as an entry of a page table
/// it maps nothing.
#[test]
fn a_clock_in_a_page_table_takes_its_translations_with_it() {
    let mut machine = machine();
    for (msr, value) in [(KVM_SYSTEM_TIME, LAST | 1), (TSC, 1 << 32), (KVM_WALL_CLOCK, LAST)] {
        machine.map();
        machine.write_msr(msr, value);
        let entry = machine.vm.memory().read_u64(crate::GuestPhysAddr::new(LAST)).unwrap();
        assert_eq!(entry & 1, 0, "{msr:#x}: the entry is gone");
        assert_eq!(machine.translation(), None, "{msr:#x}: and what was made from it");
    }
}

/// The bytes of one clock may lie in two page tables.
#[test]
fn a_clock_across_the_end_of_a_page_is_told_of_in_both() {
    let mut machine = machine();
    for start in [LAST - 20, LAST - 12] {
        machine.map();
        machine.write_msr(KVM_SYSTEM_TIME, start | 1);
        assert_eq!(machine.translation(), None, "{start:#x}");
    }
}
