// SPDX-License-Identifier: MIT OR Apache-2.0
//! EFER on CPUs whose VMCS does not hold it: through the areas of MSRs that entries and exits
//! load (Intel SDM vol. 3, 24.7.2, 24.8.2, 26.4 and 27.6).
//!
//! Entries set LMA and LME themselves, by their control "IA-32e mode guest", and exits set them
//! for the host; a value to be loaded agrees with that.

use host_iface::{Host, HostError, HostPhysAddr, PageRequest};
use x86::msr::IA32_EFER;

use crate::{
    memory::OwnedPages,
    state::efer::{LMA, LME},
};

/// An entry of an area.
#[repr(C, align(16))]
struct MsrEntry {
    msr: u32,
    reserved: u32,
    value: u64,
}

/// Number of entries in each area.
pub const COUNT: u64 = 1;

/// Where the area for exits begins; that for entries begins at zero.
const FOR_EXITS: usize = 2048;

/// An area for entries and one for exits, with EFER in each.
pub struct EferAreas {
    page: OwnedPages,
}

impl EferAreas {
    /// Makes areas that load zero.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host) -> Result<Self, HostError> {
        Ok(Self { page: OwnedPages::zeroed(host, PageRequest::contiguous(1))? })
    }

    /// Physical addresses of the area for entries and of that for exits.
    pub fn addresses(&self) -> [HostPhysAddr; 2] {
        let page = self.page.address();
        [page, HostPhysAddr::new(page.as_u64() + FOR_EXITS as u64)]
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.page.bytes()
    }

    /// Sets the value for the guest. With paging, which is always on where this is used, LME
    /// and LMA are equal.
    pub fn set_guest(&mut self, efer: u64) {
        let long = if efer & LMA != 0 { LME | LMA } else { 0 };
        self.set(0, efer & !(LME | LMA) | long);
    }

    /// Sets the value for the host.
    pub fn set_host(&mut self, efer: u64) {
        self.set(FOR_EXITS, efer);
    }

    fn set(&mut self, offset: usize, value: u64) {
        let entry = MsrEntry { msr: IA32_EFER, reserved: 0, value };
        // SAFETY: both areas lie in our page, aligned to 16 bytes. The CPU reads them during
        // entries and exits only.
        unsafe { self.page.as_ptr().byte_add(offset).cast::<MsrEntry>().write_volatile(entry) }
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;
    use crate::state::efer::{NXE, SCE};

    fn area(areas: &EferAreas, offset: usize) -> (u32, u64) {
        // SAFETY: the offsets of the areas.
        let entry = unsafe { areas.page.as_ptr().byte_add(offset).cast::<MsrEntry>().as_ref() };
        (entry.msr, entry.value)
    }

    #[test]
    fn each_side_has_its_efer() {
        let mut areas = EferAreas::new(MockHost::leak(1)).unwrap();
        areas.set_host(LME | LMA | NXE);
        areas.set_guest(LME | SCE);
        assert_eq!(area(&areas, 0), (IA32_EFER, SCE), "long mode is not active yet");
        areas.set_guest(LME | LMA | SCE);
        assert_eq!(area(&areas, 0), (IA32_EFER, LME | LMA | SCE));
        assert_eq!(area(&areas, FOR_EXITS), (IA32_EFER, LME | LMA | NXE));
        let [entry, exit] = areas.addresses();
        assert_eq!(exit.as_u64() - entry.as_u64(), 2048);
    }
}
