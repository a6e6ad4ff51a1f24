// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O port space.

use alloc::{boxed::Box, string::ToString, sync::Arc, vec, vec::Vec};
use core::ops::RangeInclusive;

use super::{Answer, ClaimError};
use crate::{AccessWidth, PortDevice};

const PORTS: usize = 0x1_0000;
const UNCLAIMED: u8 = 0;

struct Claim {
    start: u16,
    last: u16,
    /// What the device takes whole.
    widest: AccessWidth,
    device: Arc<dyn PortDevice>,
}

/// The ports of one VM: a table from port to claim, so that an access costs one look-up.
pub struct PortBus {
    /// Index into `claims` plus one, or [`UNCLAIMED`].
    owner: Box<[u8]>,
    claims: Vec<Claim>,
}

impl Default for PortBus {
    fn default() -> Self {
        Self { owner: vec![UNCLAIMED; PORTS].into_boxed_slice(), claims: Vec::new() }
    }
}

impl PortBus {
    /// Gives `ports` to `device`.
    ///
    /// # Errors
    /// [`ClaimError`]; nothing changes then.
    pub fn claim(
        &mut self,
        ports: RangeInclusive<u16>,
        device: Arc<dyn PortDevice>,
    ) -> Result<(), ClaimError> {
        let (start, last) = (*ports.start(), *ports.end());
        let name = || device.name().to_string();
        if start > last {
            return Err(ClaimError::BadRange { start: start.into(), device: name() });
        }
        if let Some(owner) = ports.clone().find_map(|port| self.claim_of(port)) {
            return Err(ClaimError::Overlap {
                start: start.into(),
                last: last.into(),
                device: name(),
                owner: owner.device.name().to_string(),
            });
        }
        let number = u8::try_from(self.claims.len() + 1).map_err(|_| ClaimError::Full)?;
        let widest = device.widest();
        self.claims.push(Claim { start, last, widest, device });
        self.owner[usize::from(start)..=usize::from(last)].fill(number);
        Ok(())
    }

    /// Takes the device at `port` off all of its ports there, which then trap and read as
    /// nothing again. False if there is none.
    pub fn release(&mut self, port: u16) -> bool {
        let Some(claim) = self.claim_of(port) else { return false };
        let (start, last) = (usize::from(claim.start), usize::from(claim.last));
        // The claim itself stays, so that the numbers of the others do; nothing leads to it.
        self.owner[start..=last].fill(UNCLAIMED);
        true
    }

    /// What is claimed: ranges of ports, and the names of their devices.
    pub fn claims(&self) -> impl Iterator<Item = (RangeInclusive<u16>, &str)> {
        let live = |claim: &&Claim| {
            self.claim_of(claim.start).is_some_and(|owner| core::ptr::eq(owner, *claim))
        };
        self.claims.iter().filter(live).map(|c| (c.start..=c.last, c.device.name()))
    }

    /// Reads from `port`.
    #[inline]
    pub fn read(&self, port: u16, width: AccessWidth) -> (u32, Answer) {
        match self.whole(port, width) {
            Some(claim) => match claim.device.read_port(port - claim.start, width) {
                Some(value) => (value & width.all_ones() as u32, Answer::Device),
                None => (width.all_ones() as u32, Answer::Nobody),
            },
            None if width == AccessWidth::Byte => (0xFF, Answer::Nobody),
            None => self.read_bytes(port, width),
        }
    }

    /// Writes to `port`.
    #[inline]
    pub fn write(&self, port: u16, width: AccessWidth, value: u32) -> Answer {
        match self.whole(port, width) {
            Some(claim) => Answer::from_bool(claim.device.write_port(
                port - claim.start,
                width,
                value & width.all_ones() as u32,
            )),
            None if width == AccessWidth::Byte => Answer::Nobody,
            None => self.write_bytes(port, width, value),
        }
    }

    #[inline]
    fn claim_of(&self, port: u16) -> Option<&Claim> {
        let number = self.owner[usize::from(port)];
        self.claims.get(usize::from(number.checked_sub(1)?))
    }

    /// The device that takes the whole access as one.
    #[inline]
    fn whole(&self, port: u16, width: AccessWidth) -> Option<&Claim> {
        let claim = self.claim_of(port)?;
        let last = usize::from(port) + width.bytes() - 1;
        (width <= claim.widest && last <= usize::from(claim.last)).then_some(claim)
    }

    /// A wide access falls apart into bytes at consecutive ports, as on an ISA bus.
    fn read_bytes(&self, port: u16, width: AccessWidth) -> (u32, Answer) {
        let mut result = (0, Answer::Device);
        for byte in 0..width.bytes() as u16 {
            let (value, answer) = match port.checked_add(byte) {
                Some(port) => self.read(port, AccessWidth::Byte),
                None => (0xFF, Answer::Nobody),
            };
            result = (result.0 | value << (8 * byte), result.1.and(answer));
        }
        result
    }

    fn write_bytes(&self, port: u16, width: AccessWidth, value: u32) -> Answer {
        let mut result = Answer::Device;
        for byte in 0..width.bytes() as u16 {
            let answer = match port.checked_add(byte) {
                Some(port) => self.write(port, AccessWidth::Byte, value >> (8 * byte)),
                None => Answer::Nobody,
            };
            result = result.and(answer);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Recorder {
        widest: AccessWidth,
        seen: Mutex<Vec<(u16, AccessWidth, u32)>>,
    }

    impl Recorder {
        fn new(widest: AccessWidth) -> Arc<Self> {
            Arc::new(Self { widest, seen: Mutex::default() })
        }

        fn take(&self) -> Vec<(u16, AccessWidth, u32)> {
            std::mem::take(&mut self.seen.lock().unwrap())
        }
    }

    impl PortDevice for Recorder {
        fn name(&self) -> &str {
            "recorder"
        }

        fn widest(&self) -> AccessWidth {
            self.widest
        }

        fn read_port(&self, offset: u16, _: AccessWidth) -> Option<u32> {
            Some(0xA0 + u32::from(offset))
        }

        fn write_port(&self, offset: u16, width: AccessWidth, value: u32) -> bool {
            self.seen.lock().unwrap().push((offset, width, value));
            true
        }
    }

    #[test]
    fn nobody_reads_as_all_ones() {
        let bus = PortBus::default();
        assert_eq!(bus.read(0x80, AccessWidth::Dword), (0xFFFF_FFFF, Answer::Nobody));
        assert_eq!(bus.read(0xFFFF, AccessWidth::Word), (0xFFFF, Answer::Nobody));
        assert_eq!(bus.write(0xFFFF, AccessWidth::Dword, 1), Answer::Nobody);
    }

    #[test]
    fn wide_accesses_fall_apart_for_narrow_devices() {
        let mut bus = PortBus::default();
        let device = Recorder::new(AccessWidth::Byte);
        bus.claim(0x40..=0x42, device.clone()).unwrap();
        assert_eq!(bus.read(0x40, AccessWidth::Word), (0xA1A0, Answer::Device));
        assert_eq!(bus.read(0x41, AccessWidth::Dword), (0xFFFF_A2A1, Answer::Nobody));
        bus.write(0x42, AccessWidth::Word, 0x1234);
        assert_eq!(device.take(), [(2, AccessWidth::Byte, 0x34)]);
    }

    #[test]
    fn wide_devices_get_whole_accesses_that_fit() {
        let mut bus = PortBus::default();
        let device = Recorder::new(AccessWidth::Dword);
        bus.claim(0xCFC..=0xCFF, device.clone()).unwrap();
        bus.write(0xCFC, AccessWidth::Dword, 7);
        bus.write(0xCFE, AccessWidth::Dword, 0x0403_0201);
        let bytes = [(2, AccessWidth::Byte, 1), (3, AccessWidth::Byte, 2)];
        assert_eq!(device.take(), [vec![(0, AccessWidth::Dword, 7)], bytes.into()].concat());
    }

    #[test]
    fn refuses_overlaps_by_name_and_traps_again_after_release() {
        let mut bus = PortBus::default();
        bus.claim(0x40..=0x43, Recorder::new(AccessWidth::Byte)).unwrap();
        let error = bus.claim(0x43..=0x50, Recorder::new(AccessWidth::Byte)).unwrap_err();
        assert_eq!(error.to_string(), "recorder cannot have 0x43-0x50: recorder is there");
        assert_eq!(bus.claims().collect::<Vec<_>>(), [(0x40..=0x43, "recorder")]);
        assert!(bus.release(0x41) && !bus.release(0x41));
        assert_eq!(bus.claims().count(), 0);
        assert_eq!(bus.read(0x40, AccessWidth::Byte), (0xFF, Answer::Nobody));
        bus.claim(0x43..=0x50, Recorder::new(AccessWidth::Byte)).unwrap();
    }
}
