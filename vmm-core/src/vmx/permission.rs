// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O and MSR bitmaps: everything exits unless it is let through here (Intel SDM vol. 3,
//! 24.6.4 and 24.6.9).

use host_iface::{Host, HostError, HostPhysAddr, PAGE_SIZE, PageRequest};
use x86::msr;

use super::switched_msrs::SWITCHED;
use crate::memory::OwnedPages;

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
    io: OwnedPages,
    msr: OwnedPages,
}

/// Byte and bit of an MSR in the half of the MSR bitmap that is about reads; writes are 2 KiB
/// further on.
const fn position(msr: u32) -> Option<(usize, u32)> {
    let range = match msr {
        0..=0x1FFF => 0,
        0xC000_0000..=0xC000_1FFF => 0x400,
        _ => return None,
    };
    let number = msr & 0x1FFF;
    Some((range + number as usize / 8, number % 8))
}

const WRITES: usize = 0x800;

impl PermissionMaps {
    /// Bitmaps in which all ports exit, and all MSRs but those that are switched.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host) -> Result<Self, HostError> {
        let io = OwnedPages::allocate(host, PageRequest::contiguous(IO_BITMAP_PAGES))?;
        let msr = OwnedPages::allocate(host, PageRequest::contiguous(1))?;
        io.fill(0xFF);
        msr.fill(0xFF);
        let mut maps = Self { io, msr };
        for owned in IN_VMCS.into_iter().chain(SWITCHED) {
            maps.pass_through(owned, 0);
            maps.pass_through(owned, WRITES);
        }
        // Reading the time-stamp counter costs no exit: the offset in the VMCS applies.
        maps.pass_through(msr::IA32_TIME_STAMP_COUNTER, 0);
        Ok(maps)
    }

    fn pass_through(&mut self, msr: u32, half: usize) {
        let Some((offset, bit)) = position(msr) else { return };
        // SAFETY: `position` stays below 0x800, so the byte is in the page, which we own, and
        // no guest runs with a bitmap that is still being built.
        unsafe {
            let byte = self.msr.as_ptr().add(half + offset);
            byte.write(byte.read() & !(1 << bit));
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

    fn byte(pages: &OwnedPages, offset: usize) -> u8 {
        assert!(offset < pages.bytes());
        // SAFETY: inside the pages, which nobody else uses.
        unsafe { pages.as_ptr().add(offset).read() }
    }

    #[test]
    fn everything_exits_but_what_is_switched() {
        let maps = PermissionMaps::new(MockHost::leak(1)).unwrap();
        assert!((0..maps.io.bytes()).all(|i| byte(&maps.io, i) == 0xFF));
        let open: u32 = (0..maps.msr.bytes()).map(|i| byte(&maps.msr, i).count_zeros()).sum();
        assert_eq!(open as usize, 2 * (IN_VMCS.len() + SWITCHED.len()) + 1);
        let lstar = position(msr::IA32_LSTAR).unwrap();
        assert_eq!(lstar, (0x410, 2));
        assert_eq!(byte(&maps.msr, lstar.0) >> 2 & 1, 0);
        assert_eq!(byte(&maps.msr, WRITES + lstar.0) >> 2 & 1, 0);
        assert_eq!(byte(&maps.msr, 2) & 1, 0, "TSC: reads pass");
        assert_eq!(byte(&maps.msr, WRITES + 2) & 1, 1, "TSC: writes exit");
        assert_eq!(position(0x4000_0000), None);
    }
}
