// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices in guest-physical memory space.

use alloc::{string::ToString, sync::Arc, vec::Vec};

use super::{Answer, ClaimError};
use crate::{AccessWidth, GuestPhysAddr, MmioDevice};

struct Claim {
    start: u64,
    last: u64,
    device: Arc<dyn MmioDevice>,
}

/// The memory-mapped devices of one VM, in ascending order.
#[derive(Default)]
pub struct MmioBus {
    claims: Vec<Claim>,
}

impl MmioBus {
    /// Gives `bytes` from `start` on to `device`.
    ///
    /// # Errors
    /// [`ClaimError`]; nothing changes then.
    pub fn claim(
        &mut self,
        start: GuestPhysAddr,
        bytes: u64,
        device: Arc<dyn MmioDevice>,
    ) -> Result<(), ClaimError> {
        let start = start.as_u64();
        let name = device.name().to_string();
        let Some(last) = bytes.checked_sub(1).and_then(|b| start.checked_add(b)) else {
            return Err(ClaimError::BadRange { start, device: name });
        };
        self.check_free(GuestPhysAddr::new(start), bytes, &name)?;
        let position = self.claims.partition_point(|c| c.start < start);
        self.claims.insert(position, Claim { start, last, device });
        Ok(())
    }

    /// Checks that no device has claimed any of the `bytes`, at least one, from `start` on,
    /// which `wanted_by` asks for.
    ///
    /// # Errors
    /// [`ClaimError::Overlap`].
    pub fn check_free(
        &self,
        start: GuestPhysAddr,
        bytes: u64,
        wanted_by: &str,
    ) -> Result<(), ClaimError> {
        let start = start.as_u64();
        let last = start.saturating_add(bytes.saturating_sub(1));
        match self.claims.iter().find(|c| c.start <= last && start <= c.last) {
            Some(other) => Err(ClaimError::Overlap {
                start,
                last,
                device: wanted_by.to_string(),
                owner: other.device.name().to_string(),
            }),
            None => Ok(()),
        }
    }

    /// Takes away the device that answers at `address`. False if there is none.
    pub fn release(&mut self, address: GuestPhysAddr) -> bool {
        let position = self.position_of(address.as_u64());
        position.map(|p| self.claims.remove(p)).is_some()
    }

    /// What is claimed, in ascending order: first and last byte, and the names of the devices.
    pub fn claims(&self) -> impl Iterator<Item = (GuestPhysAddr, GuestPhysAddr, &str)> {
        let place = GuestPhysAddr::new;
        self.claims.iter().map(move |c| (place(c.start), place(c.last), c.device.name()))
    }

    /// Reads at `address`. An access that crosses the end of a device meets nobody.
    pub fn read(&self, address: GuestPhysAddr, width: AccessWidth) -> (u64, Answer) {
        let value = self
            .claim_of(address, width)
            .and_then(|(claim, offset)| claim.device.read_mmio(offset, width));
        match value {
            Some(value) => (value & width.all_ones(), Answer::Device),
            None => (width.all_ones(), Answer::Nobody),
        }
    }

    /// Writes at `address`.
    pub fn write(&self, address: GuestPhysAddr, width: AccessWidth, value: u64) -> Answer {
        Answer::from_bool(self.claim_of(address, width).is_some_and(|(claim, offset)| {
            claim.device.write_mmio(offset, width, value & width.all_ones())
        }))
    }

    fn position_of(&self, address: u64) -> Option<usize> {
        let position = self.claims.partition_point(|c| c.last < address);
        self.claims.get(position).filter(|c| c.start <= address).map(|_| position)
    }

    fn claim_of(&self, address: GuestPhysAddr, width: AccessWidth) -> Option<(&Claim, u64)> {
        let address = address.as_u64();
        let claim = &self.claims[self.position_of(address)?];
        let end = address.checked_add(width.bytes() as u64 - 1)?;
        (end <= claim.last).then_some((claim, address - claim.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl MmioDevice for Echo {
        fn name(&self) -> &str {
            "echo"
        }

        fn read_mmio(&self, offset: u64, _: AccessWidth) -> Option<u64> {
            (offset != 8).then_some(offset)
        }

        fn write_mmio(&self, offset: u64, _: AccessWidth, _: u64) -> bool {
            offset != 8
        }
    }

    fn at(address: u64) -> GuestPhysAddr {
        GuestPhysAddr::new(address)
    }

    #[test]
    fn only_whole_accesses_reach_a_device() {
        let mut bus = MmioBus::default();
        bus.claim(at(0x2000), 0x1000, Arc::new(Echo)).unwrap();
        bus.claim(at(0x1000), 0x800, Arc::new(Echo)).unwrap();
        assert_eq!(bus.read(at(0x2FFC), AccessWidth::Dword), (0xFFC, Answer::Device));
        let nobody = (u32::MAX.into(), Answer::Nobody);
        for address in [0x2FFD, 0xFFF, 0x1800, 0x17FE, 0x2008, u64::MAX] {
            assert_eq!(bus.read(at(address), AccessWidth::Dword), nobody);
            assert_eq!(bus.write(at(address), AccessWidth::Dword, 0), Answer::Nobody);
        }
        assert!(bus.release(at(0x2010)));
        assert_eq!(bus.read(at(0x2000), AccessWidth::Dword), nobody);
    }

    #[test]
    fn refuses_overlaps_and_nonsense() {
        let mut bus = MmioBus::default();
        bus.claim(at(0x2000), 0x1000, Arc::new(Echo)).unwrap();
        for (start, bytes) in [(0x1FFF, 2), (0x2FFF, 1), (0x2100, 8), (0, u64::MAX)] {
            let result = bus.claim(at(start), bytes, Arc::new(Echo));
            assert!(matches!(result, Err(ClaimError::Overlap { .. })));
        }
        for (start, bytes) in [(0, 0), (u64::MAX, 2)] {
            let result = bus.claim(at(start), bytes, Arc::new(Echo));
            assert!(matches!(result, Err(ClaimError::BadRange { .. })));
        }
    }
}
