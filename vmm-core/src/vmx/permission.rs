// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O and MSR bitmaps: everything exits unless it is let through here (Intel SDM vol. 3,
//! 24.6.4 and 24.6.9).

use core::ops::RangeInclusive;

use host_iface::{Host, HostError, HostPhysAddr, PAGE_SIZE};
use x86::msr;

use super::switched_msrs::SWITCHED;
use crate::trap_map::TrapMap;

const IO_BITMAP_PAGES: u64 = 2;

/// MSRs that the guest reads and writes itself because the VMCS holds them.
const IN_VMCS: [u32; 5] = [
    msr::IA32_FS_BASE,
    msr::IA32_GS_BASE,
    msr::IA32_SYSENTER_CS,
    msr::IA32_SYSENTER_ESP,
    msr::IA32_SYSENTER_EIP,
];

/// MSRs of x2APIC mode that the CPU may answer for from the virtual-APIC page, if that mode is
/// virtualized: the task priority alone, and what it keeps up to date there by itself.
const TASK_PRIORITY: u32 = 0x808;
const PROCESSOR_PRIORITY: u32 = 0x80A;
const END_OF_INTERRUPT: u32 = 0x80B;
const INTERRUPTS: RangeInclusive<u32> = 0x810..=0x827;
const SELF_IPI: u32 = 0x83F;

/// Which MSRs of x2APIC mode the CPU answers for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum X2ApicMsrs {
    /// None.
    None,
    /// The task priority.
    TaskPriority,
    /// All that need no more than the virtual-APIC page and virtual-interrupt delivery.
    Interrupts,
}

/// Bitmaps; as no VM is let through to anything of its own, all VMs share them.
pub struct PermissionMaps {
    io: TrapMap,
    msr: TrapMap,
    task_priority: TrapMap,
    interrupts: TrapMap,
}

/// Byte and bit of an MSR in the half of the MSR bitmap that is about reads; writes are 2 KiB
/// further on.
const fn position(msr: u32) -> Option<(usize, usize)> {
    let range = match msr {
        0..=0x1FFF => 0,
        0xC000_0000..=0xC000_1FFF => 0x400,
        _ => return None,
    };
    let number = (msr & 0x1FFF) as usize;
    Some((range + number / 8, number % 8))
}

const READS: usize = 0;
const WRITES: usize = 0x800;

impl PermissionMaps {
    /// Bitmaps in which all ports exit, and all MSRs but those that are switched.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host) -> Result<Self, HostError> {
        let io = TrapMap::new(host, IO_BITMAP_PAGES)?;
        let task_priority = || -> Result<TrapMap, HostError> {
            let mut map = msr_map(host)?;
            pass_through(&mut map, TASK_PRIORITY, READS);
            pass_through(&mut map, TASK_PRIORITY, WRITES);
            Ok(map)
        };
        let mut interrupts = task_priority()?;
        for read in INTERRUPTS.chain([PROCESSOR_PRIORITY]) {
            pass_through(&mut interrupts, read, READS);
        }
        pass_through(&mut interrupts, END_OF_INTERRUPT, WRITES);
        pass_through(&mut interrupts, SELF_IPI, WRITES);
        Ok(Self { io, msr: msr_map(host)?, task_priority: task_priority()?, interrupts })
    }

    /// Physical addresses of the bitmaps of the lower and the upper half of all ports.
    pub fn io_addresses(&self) -> [HostPhysAddr; 2] {
        let lower = self.io.address();
        [lower, HostPhysAddr::new(lower.as_u64() + PAGE_SIZE)]
    }

    /// Physical address of the MSR bitmap with which the CPU answers for `x2apic`.
    pub fn msr_address(&self, x2apic: X2ApicMsrs) -> HostPhysAddr {
        match x2apic {
            X2ApicMsrs::None => self.msr.address(),
            X2ApicMsrs::TaskPriority => self.task_priority.address(),
            X2ApicMsrs::Interrupts => self.interrupts.address(),
        }
    }
}

/// A bitmap in which all MSRs exit but those that are switched.
fn msr_map(host: &'static dyn Host) -> Result<TrapMap, HostError> {
    let mut map = TrapMap::new(host, 1)?;
    for owned in IN_VMCS.into_iter().chain(SWITCHED) {
        pass_through(&mut map, owned, READS);
        pass_through(&mut map, owned, WRITES);
    }
    // Reading the time-stamp counter costs no exit: the offset in the VMCS applies.
    pass_through(&mut map, msr::IA32_TIME_STAMP_COUNTER, READS);
    Ok(map)
}

fn pass_through(map: &mut TrapMap, msr: u32, half: usize) {
    if let Some((offset, bit)) = position(msr) {
        map.let_through((half + offset) * 8 + bit);
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;

    #[test]
    fn everything_exits_but_what_is_switched() {
        let maps = PermissionMaps::new(MockHost::leak(1)).unwrap();
        assert_eq!(maps.io.open(), 0);
        assert_eq!(maps.msr.open(), 2 * (IN_VMCS.len() + SWITCHED.len()) + 1);
        let lstar = position(msr::IA32_LSTAR).unwrap();
        assert_eq!(lstar, (0x410, 2));
        let traps = |offset: usize, bit| maps.msr.traps(offset * 8 + bit);
        assert!(!traps(lstar.0, 2));
        assert!(!traps(WRITES + lstar.0, 2));
        assert!(!traps(2, 0), "TSC: reads pass");
        assert!(traps(WRITES + 2, 0), "TSC: writes exit");
        assert_eq!(position(0x4000_0000), None);
        assert_eq!(maps.task_priority.open(), maps.msr.open() + 2);
        // 26 reads, of which the task priority's is one, and three writes.
        assert_eq!(maps.interrupts.open(), maps.msr.open() + 26 + 3);
        let eoi = position(END_OF_INTERRUPT).unwrap();
        let eoi_traps = |half| maps.interrupts.traps((half + eoi.0) * 8 + eoi.1);
        assert!(!eoi_traps(WRITES) && eoi_traps(READS), "EOI is write-only");
    }
}
