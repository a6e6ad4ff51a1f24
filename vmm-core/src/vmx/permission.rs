// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O and MSR bitmaps: everything exits unless it is let through here (Intel SDM vol. 3,
//! 24.6.4 and 24.6.9).

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

/// Bitmaps; as no VM is let through to anything of its own, all VMs share them.
pub struct PermissionMaps {
    io: TrapMap,
    msr: TrapMap,
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

const WRITES: usize = 0x800;

impl PermissionMaps {
    /// Bitmaps in which all ports exit, and all MSRs but those that are switched.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host) -> Result<Self, HostError> {
        let io = TrapMap::new(host, IO_BITMAP_PAGES)?;
        let mut maps = Self { io, msr: TrapMap::new(host, 1)? };
        for owned in IN_VMCS.into_iter().chain(SWITCHED) {
            maps.pass_through(owned, 0);
            maps.pass_through(owned, WRITES);
        }
        // Reading the time-stamp counter costs no exit: the offset in the VMCS applies.
        maps.pass_through(msr::IA32_TIME_STAMP_COUNTER, 0);
        Ok(maps)
    }

    fn pass_through(&mut self, msr: u32, half: usize) {
        if let Some((offset, bit)) = position(msr) {
            self.msr.let_through((half + offset) * 8 + bit);
        }
    }

    /// Physical addresses of the bitmaps of the lower and the upper half of all ports.
    pub fn io_addresses(&self) -> [HostPhysAddr; 2] {
        let lower = self.io.address();
        [lower, HostPhysAddr::new(lower.as_u64() + PAGE_SIZE)]
    }

    /// Physical address of the MSR bitmap.
    pub fn msr_address(&self) -> HostPhysAddr {
        self.msr.address()
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
    }
}
