// SPDX-License-Identifier: MIT OR Apache-2.0
//! A test of the property test: walkers that break one rule each must be found out.

use proptest::test_runner::{TestCaseError, TestError};

use super::property::{agrees, first_failure};
use super::shape::Shape;
use crate::paging::walk::rules::{Architecture, Rules, entry};
use crate::paging::walk::{Access, AccessKind, AddressSpace, Mode, Privilege, Rights, page_fault};
use crate::state::{cr0, cr4, efer};

/// Declares walkers that follow the architecture but for one rule, and the list of them.
macro_rules! mutants {
    ($($name:ident { $($rule:item)+ })+) => {
        $(struct $name; impl Rules for $name { $($rule)+ })+

        const MUTANTS: &[(&str, fn(Shape) -> Result<(), TestCaseError>)] =
            &[$((stringify!($name), agrees::<$name>)),+];
    };
}

/// The architecture's reserved bits without some.
fn reserved_but(space: &AddressSpace, mode: Mode, level: u8, value: u64, ignored: u64) -> u64 {
    Architecture::reserved(space, mode, level, value) & !ignored
}

/// The architecture's verdict under other control registers.
fn permits_with(
    space: &AddressSpace,
    rights: Rights,
    access: Access,
    change: impl FnOnce(&mut AddressSpace),
) -> bool {
    let mut space = *space;
    change(&mut space);
    Architecture::permits(&space, rights, access)
}

mutants! {
    ChecksNoReservedBits {
        fn reserved(_: &AddressSpace, _: Mode, _: u8, _: u64) -> u64 { 0 }
    }
    IgnoresPhysicalAddressWidth {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            reserved_but(space, mode, level, value, space.beyond_physical())
        }
    }
    AllowsOneBitTooWide {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let lowest = space.beyond_physical() & space.beyond_physical().wrapping_neg();
            reserved_but(space, mode, level, value, lowest)
        }
    }
    AllowsNoExecuteWhileDisabled {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            reserved_but(space, mode, level, value, entry::NO_EXECUTE)
        }
    }
    ReservesNoExecuteAlways {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let reserved = Architecture::reserved(space, mode, level, value);
            if mode == Mode::Legacy32 { reserved } else { reserved | entry::NO_EXECUTE }
        }
    }
    AllowsMisalignedLargePages {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let misaligned = if mode != Mode::Legacy32 && level == 2 { 0x001F_E000 } else { 0 };
            reserved_but(space, mode, level, value, misaligned)
        }
    }
    AllowsMisalignedHugePages {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let misaligned = if level == 3 { 0x3FFF_E000 } else { 0 };
            reserved_but(space, mode, level, value, misaligned)
        }
    }
    ReservesTheAttributeBitOfLargePages {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let reserved = Architecture::reserved(space, mode, level, value);
            if reserved & 0x2000 == 0 { reserved } else { reserved | 0x1000 }
        }
    }
    AllowsLargeTopEntries {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let large = if level == 4 { entry::LARGE } else { 0 };
            reserved_but(space, mode, level, value, large)
        }
    }
    AllowsGlobalTablesOnAmd {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let global = if mode == Mode::FourLevel { entry::GLOBAL } else { 0 };
            reserved_but(space, mode, level, value, global)
        }
    }
    AllowsHighBitsInPaeEntries {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let high = if level < 3 { 0x7FF0_0000_0000_0000 } else { 0 };
            reserved_but(space, mode, level, value, high)
        }
    }
    ReservesHighBitsInLongMode {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let high = if mode == Mode::FourLevel { 0x7FF0_0000_0000_0000 } else { 0 };
            Architecture::reserved(space, mode, level, value) | high
        }
    }
    AllowsRightsInPaePointers {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let rights = if mode.is_pae_pointer(level) { 0x6 } else { 0 };
            reserved_but(space, mode, level, value, rights)
        }
    }
    AllowsBit21InFourMegabytePages {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let bit = if mode == Mode::Legacy32 { 1 << 21 } else { 0 };
            reserved_but(space, mode, level, value, bit)
        }
    }
    AllowsAllOfPse36 {
        fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
            let field = if mode == Mode::Legacy32 { 0x001F_E000 } else { 0 };
            reserved_but(space, mode, level, value, field)
        }
    }
    MapsLargePagesWithoutPse {
        fn maps_page(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> bool {
            let large = mode == Mode::Legacy32 && value & entry::LARGE != 0;
            large || Architecture::maps_page(space, mode, level, value)
        }
    }
    MapsHugePagesOnEveryModel {
        fn maps_page(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> bool {
            let huge = mode == Mode::FourLevel && level == 3 && value & entry::LARGE != 0;
            huge || Architecture::maps_page(space, mode, level, value)
        }
    }
    NeedsPseForPaeLargePages {
        fn maps_page(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> bool {
            let without = mode == Mode::Pae && level == 2 && space.control.cr4 & cr4::PSE == 0;
            !without && Architecture::maps_page(space, mode, level, value)
        }
    }
    TakesWriteFromTheLastEntry {
        fn combine(rights: Rights, value: u64) -> Rights {
            Rights { write: value & entry::WRITE != 0, ..Architecture::combine(rights, value) }
        }
    }
    TakesUserFromTheLastEntry {
        fn combine(rights: Rights, value: u64) -> Rights {
            Rights { user: value & entry::USER != 0, ..Architecture::combine(rights, value) }
        }
    }
    TakesNoExecuteFromTheLastEntry {
        fn combine(rights: Rights, value: u64) -> Rights {
            let execute = value & entry::NO_EXECUTE == 0;
            Rights { execute, ..Architecture::combine(rights, value) }
        }
    }
    ProtectsReadOnlyPagesWithoutWp {
        fn permits(space: &AddressSpace, rights: Rights, access: Access) -> bool {
            permits_with(space, rights, access, |space| space.control.cr0 |= cr0::WP)
        }
    }
    IgnoresWp {
        fn permits(space: &AddressSpace, rights: Rights, access: Access) -> bool {
            permits_with(space, rights, access, |space| space.control.cr0 &= !cr0::WP)
        }
    }
    LetsUsersWriteWithoutWp {
        fn permits(space: &AddressSpace, mut rights: Rights, access: Access) -> bool {
            rights.write |= space.control.cr0 & cr0::WP == 0;
            Architecture::permits(space, rights, access)
        }
    }
    IgnoresUserBit {
        fn permits(space: &AddressSpace, rights: Rights, mut access: Access) -> bool {
            if access.privilege == Privilege::User && !rights.user {
                access.privilege = Privilege::Supervisor;
            }
            Architecture::permits(space, rights, access)
        }
    }
    IgnoresNoExecute {
        fn permits(space: &AddressSpace, rights: Rights, access: Access) -> bool {
            Architecture::permits(space, Rights { execute: true, ..rights }, access)
        }
    }
    IgnoresSmep {
        fn permits(space: &AddressSpace, rights: Rights, access: Access) -> bool {
            permits_with(space, rights, access, |space| space.control.cr4 &= !cr4::SMEP)
        }
    }
    IgnoresSmap {
        fn permits(space: &AddressSpace, rights: Rights, access: Access) -> bool {
            permits_with(space, rights, access, |space| space.control.cr4 &= !cr4::SMAP)
        }
    }
    SmapIgnoresAc {
        fn permits(space: &AddressSpace, rights: Rights, access: Access) -> bool {
            permits_with(space, rights, access, |space| space.alignment_check = false)
        }
    }
    AcLiftsSmapForImplicitAccesses {
        fn permits(space: &AddressSpace, rights: Rights, mut access: Access) -> bool {
            if access.privilege == Privilege::ImplicitSupervisor {
                access.privilege = Privilege::Supervisor;
            }
            Architecture::permits(space, rights, access)
        }
    }
    SmapStopsFetches {
        fn permits(space: &AddressSpace, rights: Rights, access: Access) -> bool {
            let smap = space.control.cr4 & cr4::SMAP != 0;
            let stopped = smap && rights.user && access.privilege != Privilege::User;
            !(stopped && access.kind == AccessKind::Fetch)
                && Architecture::permits(space, rights, access)
        }
    }
    ReportsEveryFetch {
        fn error_code(space: &AddressSpace, access: Access, cause: u32) -> u32 {
            let fetch = access.kind == AccessKind::Fetch;
            let bit = if fetch { page_fault::FETCH } else { 0 };
            Architecture::error_code(space, access, cause) | bit
        }
    }
    ReportsFetchesForNoExecuteOnly {
        fn error_code(space: &AddressSpace, access: Access, cause: u32) -> u32 {
            let mut space = *space;
            space.control.cr4 &= !cr4::SMEP;
            Architecture::error_code(&space, access, cause)
        }
    }
    ReportsFetchesWithoutPae {
        fn error_code(space: &AddressSpace, access: Access, cause: u32) -> u32 {
            let mut space = *space;
            space.control.cr4 |= if space.control.efer & efer::NXE != 0 { cr4::PAE } else { 0 };
            Architecture::error_code(&space, access, cause)
        }
    }
    ReportsReservedBitsAsAbsent {
        fn error_code(space: &AddressSpace, access: Access, cause: u32) -> u32 {
            let reserved = cause & page_fault::RESERVED != 0;
            let cause = if reserved { cause & !page_fault::PRESENT } else { cause };
            Architecture::error_code(space, access, cause)
        }
    }
    ReportsImplicitAccessesAsUser {
        fn error_code(space: &AddressSpace, access: Access, cause: u32) -> u32 {
            let implicit = access.privilege == Privilege::ImplicitSupervisor;
            let bit = if implicit { page_fault::USER } else { 0 };
            Architecture::error_code(space, access, cause) | bit
        }
    }
    MarksPagesDirtyOnReads {
        fn marks(mode: Mode, level: u8, is_page: bool, _: AccessKind) -> u64 {
            Architecture::marks(mode, level, is_page, AccessKind::Write)
        }
    }
    MarksTablesDirty {
        fn marks(mode: Mode, level: u8, _: bool, kind: AccessKind) -> u64 {
            Architecture::marks(mode, level, true, kind)
        }
    }
    NeverMarksDirty {
        fn marks(mode: Mode, level: u8, is_page: bool, _: AccessKind) -> u64 {
            Architecture::marks(mode, level, is_page, AccessKind::Read)
        }
    }
    MarksPaePointers {
        fn marks(mode: Mode, level: u8, is_page: bool, kind: AccessKind) -> u64 {
            Architecture::marks(mode, level, is_page, kind) | entry::ACCESSED
        }
    }
    MarksThePageOnly {
        fn marks(mode: Mode, level: u8, is_page: bool, kind: AccessKind) -> u64 {
            if is_page { Architecture::marks(mode, level, is_page, kind) } else { 0 }
        }
    }
}

#[test]
fn every_broken_rule_is_noticed() {
    let unnoticed: Vec<_> = MUTANTS
        .iter()
        .filter(|(_, property)| !matches!(first_failure(*property), Some(TestError::Fail(..))))
        .map(|(name, _)| name)
        .collect();
    assert!(unnoticed.is_empty(), "unnoticed: {unnoticed:?}");
}
