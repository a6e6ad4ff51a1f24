// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests without paging on CPUs that execute guests with paging only.
//!
//! Without "unrestricted guest" CR0.PE and CR0.PG are always set while a guest runs (Intel SDM
//! vol. 3, 23.8). With EPT, a guest in protected mode that has not switched paging on runs on
//! a page directory of ours, which maps its 32-bit linear addresses to themselves. The guest
//! sees its own CR0, CR3, CR4 and EFER: accesses to them exit, or are answered by a shadow.

use host_iface::{Host, HostError, PageRequest};

use crate::{
    GuestPhysAddr,
    backend::HardwarePage,
    memory::OwnedPages,
    state::{ControlRegisters, cr0, cr4, efer},
};

/// Where the directory is in guest-physical space: between the local APICs and the firmware of
/// a PC, where there is neither memory nor a device.
const DIRECTORY: GuestPhysAddr = GuestPhysAddr::new(0xFEFF_F000);

const ENTRIES: u32 = 1024;

/// The page directory. It is the same for all guests, and none can write to it.
pub struct IdentityMap {
    directory: OwnedPages,
}

impl IdentityMap {
    /// Makes the directory: 1024 pages of 4 MiB, open to every privilege level.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host) -> Result<Self, HostError> {
        let directory = OwnedPages::allocate(host, PageRequest::contiguous(1))?;
        let first = directory.as_ptr().cast::<u32>();
        for index in 0..ENTRIES {
            // SAFETY: the page has room for 1024 entries, and is ours alone so far.
            unsafe { first.add(index as usize).write_volatile(entry(index)) };
        }
        Ok(Self { directory })
    }

    /// What the nested tables of every VM have to map.
    pub fn page(&self) -> HardwarePage {
        HardwarePage { guest: DIRECTORY, host: self.directory.address() }
    }
}

/// The entry of page number `index`. Accessed and dirty are set from the start, so that the CPU
/// never writes to the directory.
const fn entry(index: u32) -> u32 {
    const PRESENT: u32 = 1 << 0;
    const WRITABLE: u32 = 1 << 1;
    const USER: u32 = 1 << 2;
    const ACCESSED: u32 = 1 << 5;
    const DIRTY: u32 = 1 << 6;
    const LARGE: u32 = 1 << 7;
    index << 22 | PRESENT | WRITABLE | USER | ACCESSED | DIRTY | LARGE
}

/// The registers with which a guest runs on the directory that believes in `guest`, without
/// paging. Of long mode there is nothing but the wish, which the hardware must not see.
pub const fn on_identity_map(guest: ControlRegisters) -> ControlRegisters {
    const OTHER_FORMATS: u64 = cr4::PAE | cr4::LA57 | cr4::PCIDE | cr4::SMEP | cr4::SMAP | cr4::PKE;
    ControlRegisters {
        cr0: guest.cr0 | cr0::PE | cr0::PG,
        cr2: guest.cr2,
        cr3: DIRECTORY.as_u64(),
        cr4: guest.cr4 & !OTHER_FORMATS | cr4::PSE,
        efer: guest.efer & !(efer::LME | efer::LMA),
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;
    use crate::{
        GuestVirtAddr,
        paging::walk::{
            Access, AccessKind, AddressSpace, BusError, PagingFeatures, PhysicalMemory, Privilege,
            translate,
        },
    };

    /// The directory as the guest's CPU sees it, and nothing else; it cannot be written.
    struct Directory(IdentityMap);

    impl PhysicalMemory for Directory {
        fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError> {
            let offset = address.as_u64().checked_sub(DIRECTORY.as_u64()).ok_or(BusError)?;
            assert!(offset < 4096);
            let at = self.0.directory.as_ptr().cast::<u32>();
            // SAFETY: the offset lies in the page.
            Ok(unsafe { at.add(offset as usize / 4).read_volatile() })
        }
        fn read_u64(&self, _: GuestPhysAddr) -> Result<u64, BusError> {
            Err(BusError)
        }
        fn compare_exchange_u32(&self, _: GuestPhysAddr, _: u32, _: u32) -> Result<bool, BusError> {
            panic!("the CPU would write to the directory")
        }
        fn compare_exchange_u64(&self, _: GuestPhysAddr, _: u64, _: u64) -> Result<bool, BusError> {
            panic!("the CPU would write to the directory")
        }
    }

    #[test]
    fn every_address_is_mapped_to_itself_for_every_access() {
        let memory = Directory(IdentityMap::new(MockHost::leak(1)).unwrap());
        let guest = ControlRegisters {
            cr0: cr0::PE | cr0::WP,
            cr3: 0x1234_5000,
            cr4: cr4::PAE | cr4::SMEP | cr4::SMAP | cr4::PGE,
            efer: efer::LME | efer::NXE,
            cr2: 7,
        };
        let space = AddressSpace {
            control: on_identity_map(guest),
            alignment_check: false,
            features: PagingFeatures {
                physical_address_bits: 36,
                gigabyte_pages: false,
                table_global_reserved: false,
            },
            page_directory_pointers: None,
        };
        for address in [0, 0x1000, 0x3F_FFFF, 0x40_0000, 0xFEE0_0300, 0xFFFF_FFFF] {
            for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Fetch] {
                for privilege in [Privilege::User, Privilege::Supervisor] {
                    let access = Access { kind, privilege };
                    let found = translate(&memory, &space, GuestVirtAddr::new(address), access);
                    assert_eq!(found.unwrap().address, GuestPhysAddr::new(address));
                }
            }
        }
    }

    #[test]
    fn the_wish_for_long_mode_stays_with_the_guest() {
        let guest = ControlRegisters { efer: efer::LME | efer::SCE, ..Default::default() };
        let real = on_identity_map(guest);
        assert_eq!((real.efer, real.cr3), (efer::SCE, 0xFEFF_F000));
        assert_eq!(real.cr0 & (cr0::PE | cr0::PG), cr0::PE | cr0::PG);
    }
}
