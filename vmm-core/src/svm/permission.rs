// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O and MSR permission maps: everything traps unless it is let through here
//! (AMD APM vol. 2, 15.10.1 and 15.11).

use host_iface::{Host, HostError, HostPhysAddr, PageRequest};
use x86::msr;

use crate::memory::OwnedPages;

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
    io: OwnedPages,
    msr: OwnedPages,
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
        let io = OwnedPages::allocate(host, PageRequest::contiguous(IO_MAP_PAGES))?;
        let msr = OwnedPages::allocate(host, PageRequest::contiguous(MSR_MAP_PAGES))?;
        io.fill(0xFF);
        msr.fill(0xFF);
        let mut maps = Self { io, msr };
        for owned in GUEST_OWNED {
            maps.pass_through(owned);
        }
        Ok(maps)
    }

    /// Clears both intercepts of `msr`.
    fn pass_through(&mut self, msr: u32) {
        let Some(bit) = bit_of(msr) else { return };
        // SAFETY: `bit_of` stays below the 0x1800 bytes in use of the two-page map, which we
        // own, and no guest runs with a map that is still being built.
        unsafe {
            let byte = self.msr.as_ptr().add(bit / 8);
            byte.write(byte.read() & !(0b11 << (bit % 8)));
        }
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

    fn byte(pages: &OwnedPages, offset: usize) -> u8 {
        assert!(offset < pages.bytes());
        // SAFETY: inside the pages, which nobody else uses.
        unsafe { pages.as_ptr().add(offset).read() }
    }

    #[test]
    fn everything_traps_but_what_the_hardware_switches() {
        let maps = PermissionMaps::new(MockHost::leak(1)).unwrap();
        assert!((0..maps.io.bytes()).all(|i| byte(&maps.io, i) == 0xFF));
        let open: u32 = (0..maps.msr.bytes()).map(|i| byte(&maps.msr, i).count_zeros()).sum();
        assert_eq!(open as usize, 2 * GUEST_OWNED.len());
        let lstar = bit_of(msr::IA32_LSTAR).unwrap();
        assert_eq!(lstar / 8, 0x800 + 0x82 / 4);
        assert_eq!(byte(&maps.msr, lstar / 8) >> (lstar % 8) & 3, 0);
    }
}
