// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flat images without a header: the user says where they go and how they start.

use super::{
    BootError, BootImages, InitialState,
    image::write,
    placement::{FOUR_GIB, Placement},
    pvh,
};
use crate::{memory::GuestMemory, state::Gpr};

/// What the file of a flat image does not say by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawStart {
    /// Guest-physical address of the image's first byte.
    pub load_address: u64,
    /// Where it is entered, in bytes from its start.
    pub entry_offset: u64,
    /// Mode of the CPU at the entry.
    pub mode: RawMode,
}

/// Mode of the CPU at the entry of a flat image. In both, EBX holds the address of a PVH start
/// info, which leads to command line, memory map and modules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RawMode {
    /// Real mode, as after reset. All segment registers hold the 64 KiB block of the entry
    /// point, so that one below 0x10000 is entered at segment 0; SP is zero. The entry point
    /// must be below 1 MiB.
    Real,
    /// Flat 32-bit protected mode without paging, as for PVH.
    Protected,
}

/// End of what real mode reaches.
const ONE_MIB: u64 = 1 << 20;

/// Loads a flat image and its modules.
pub(super) fn load(
    memory: &GuestMemory,
    images: &BootImages<'_>,
    start: RawStart,
) -> Result<InitialState, BootError> {
    let (at, bytes) = (start.load_address, images.kernel.len() as u64);
    if start.entry_offset >= bytes {
        return Err(BootError::RawEntryOutside { offset: start.entry_offset, bytes });
    }
    let mut placement = Placement::new(images.memory_map);
    if at.saturating_add(bytes) > FOUR_GIB || !placement.take(at, bytes) {
        return Err(BootError::RawNotInMemory { start: at, bytes });
    }
    let entry = at + start.entry_offset;
    let mut state = match start.mode {
        RawMode::Real if entry >= ONE_MIB => return Err(BootError::RealModeEntry { entry }),
        RawMode::Real => InitialState::real_mode(entry as u32),
        RawMode::Protected => InitialState::protected_mode(entry as u32),
    };
    write(memory, at, images.kernel)?;
    state.gprs[Gpr::Rbx as usize] = pvh::write_start_info(memory, &mut placement, images)?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        boot::{Module, Start, load as load_any, test_memory::TestGuest},
        state::SegmentRegister,
    };

    fn images<'a>(kernel: &'a [u8], guest: &'a TestGuest, start: RawStart) -> BootImages<'a> {
        BootImages {
            start: Start::Raw(start),
            modules: &[Module { content: b"module", command_line: "name" }],
            ..BootImages::of(kernel, &guest.map)
        }
    }

    const PROTECTED: RawStart =
        RawStart { load_address: 0x10_0000, entry_offset: 4, mode: RawMode::Protected };

    #[test]
    fn is_put_where_it_shall_be_and_entered_there() {
        let guest = TestGuest::with_mib(2);
        let state = load_any(&guest.memory, &images(b"flat image", &guest, PROTECTED)).unwrap();
        assert_eq!(guest.bytes(0x10_0000, 10), b"flat image");
        assert_eq!((state.rip, state.control.cr0), (0x10_0004, 0x11));
        let start_info = state.gprs[Gpr::Rbx as usize];
        assert_eq!(guest.u32(start_info), 0x336E_C578);
        assert_eq!(guest.u32(start_info + 12), 1, "one module");
    }

    #[test]
    fn real_mode_starts_in_the_block_of_the_entry() {
        for (load_address, selector, ip) in [(0x7C00, 0, 0x7C04), (0x1_8000, 0x1000, 0x8004)] {
            let guest = TestGuest::with_mib(2);
            let start = RawStart { load_address, mode: RawMode::Real, ..PROTECTED };
            let state = load_any(&guest.memory, &images(b"flat image", &guest, start)).unwrap();
            for register in [SegmentRegister::Cs, SegmentRegister::Ds, SegmentRegister::Ss] {
                let segment = state.segments[register as usize];
                assert_eq!((segment.selector, segment.limit), (selector, 0xFFFF));
                assert_eq!(segment.base, u64::from(selector) << 4);
            }
            assert_eq!((state.rip, state.control.cr0 & 1), (ip, 0));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_numbers() {
        let guest = TestGuest::with_mib(2);
        let try_one = |start| load_any(&guest.memory, &images(b"flat image", &guest, start));
        assert_eq!(
            try_one(RawStart { entry_offset: 10, ..PROTECTED }),
            Err(BootError::RawEntryOutside { offset: 10, bytes: 10 })
        );
        assert_eq!(
            try_one(RawStart { mode: RawMode::Real, ..PROTECTED }),
            Err(BootError::RealModeEntry { entry: 0x10_0004 })
        );
        for load_address in [0, 0x9_FFFF, 0xA_0000, 0x1F_FFFF, 0xFFFF_FFFF, 1 << 32, u64::MAX] {
            let start = RawStart { load_address, ..PROTECTED };
            let error = BootError::RawNotInMemory { start: load_address, bytes: 10 };
            assert_eq!(try_one(start), Err(error), "{load_address:#x}");
        }
    }

    proptest! {
        #[test]
        fn no_place_and_no_entry_makes_it_panic(
            load_address: u64,
            low in 0_u64..0x40_0000,
            entry_offset in prop_oneof![0_u64..20, any::<u64>()],
            real: bool,
        ) {
            let guest = TestGuest::with_mib(2);
            let mode = if real { RawMode::Real } else { RawMode::Protected };
            for load_address in [load_address, low] {
                let start = RawStart { load_address, entry_offset, mode };
                let state = load_any(&guest.memory, &images(b"flat image", &guest, start));
                prop_assert!(state.is_err() || load_address < 2 << 20);
            }
        }
    }
}
