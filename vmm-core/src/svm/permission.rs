// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O and MSR permission maps: everything traps unless it is let through here
//! (AMD APM vol. 2, 15.10.1 and 15.11).

use host_iface::{Host, HostError, HostPhysAddr};
use x86::msr;

use crate::trap_map::TrapMap;

const IO_MAP_PAGES: u64 = 3;
const MSR_MAP_PAGES: u64 = 2;

/// MSRs that the guest reads and writes itself: VMLOAD and VMSAVE switch them.
const GUEST_OWNED: [u32; 10] = [
    msr::IA32_FS_BASE,
    msr::IA32_GS_BASE,
    msr::IA32_KERNEL_GSBASE,
    msr::IA32_STAR,
    msr::IA32_LSTAR,
    msr::IA32_CSTAR,
    msr::IA32_FMASK,
    msr::IA32_SYSENTER_CS,
    msr::IA32_SYSENTER_ESP,
    msr::IA32_SYSENTER_EIP,
];

/// Permission maps; as no VM is let through to anything of its own, all VMs share them.
pub struct PermissionMaps {
    io: TrapMap,
    msr: TrapMap,
}

/// Bit positions of an MSR in the map: its read bit; the write bit follows.
fn bit_of(msr: u32) -> Option<usize> {
    let range = match msr {
        0..=0x1FFF => 0,
        0xC000_0000..=0xC000_1FFF => 1,
        0xC001_0000..=0xC001_1FFF => 2,
        _ => return None,
    };
    Some(range * 0x800 * 8 + (msr as usize & 0x1FFF) * 2)
}

impl PermissionMaps {
    /// Maps in which all ports trap, and all MSRs but those that the hardware switches.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host) -> Result<Self, HostError> {
        let io = TrapMap::new(host, IO_MAP_PAGES)?;
        let mut maps = Self { io, msr: TrapMap::new(host, MSR_MAP_PAGES)? };
        for owned in GUEST_OWNED {
            maps.pass_through(owned);
        }
        Ok(maps)
    }

    /// Clears both intercepts of `msr`.
    fn pass_through(&mut self, msr: u32) {
        let Some(bit) = bit_of(msr) else { return };
        self.msr.let_through(bit);
        self.msr.let_through(bit + 1);
    }

    /// Physical address of the I/O permission map.
    pub fn io_address(&self) -> HostPhysAddr {
        self.io.address()
    }

    /// Physical address of the MSR permission map.
    pub fn msr_address(&self) -> HostPhysAddr {
        self.msr.address()
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;

    #[test]
    fn everything_traps_but_what_the_hardware_switches() {
        let maps = PermissionMaps::new(MockHost::leak(1)).unwrap();
        assert_eq!(maps.io.open(), 0);
        assert_eq!(maps.msr.open(), 2 * GUEST_OWNED.len());
        let lstar = bit_of(msr::IA32_LSTAR).unwrap();
        assert_eq!(lstar / 8, 0x800 + 0x82 / 4);
        assert!(!maps.msr.traps(lstar) && !maps.msr.traps(lstar + 1));
    }
}
