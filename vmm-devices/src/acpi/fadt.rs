// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fixed ACPI description table (ACPI 6.5, 5.2.9).

use acpi_tables::{
    fadt::{FADT, FADTBuilder, Flags, PmProfile},
    gas::{AccessSize, AddressSpace, GAS},
};

use super::build::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::{
    IrqRouter,
    pm::{PM_TIMER_PORT, PM1_CONTROL_PORT, PM1_EVENT_PORT},
    reset::{RESET_CONTROL_PORT, RESET_CONTROL_VALUE},
};

/// IAPC_BOOT_ARCH: there are devices on an ISA bus.
const LEGACY_DEVICES: u16 = 1 << 0;
/// IAPC_BOOT_ARCH: do not probe for VGA.
const VGA_NOT_PRESENT: u16 = 1 << 2;

/// CMOS RAM byte of the RTC that holds the century.
const CENTURY: u8 = 0x32;

/// Larger than ACPI allows for a usable C state (5.2.9, table 5.9): there is no C2, no C3.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

const EVENT_BYTES: u8 = 4;
const CONTROL_BYTES: u8 = 2;
const TIMER_BYTES: u8 = 4;

fn port(port: u16, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, u64::from(port))
}

/// The table, with the addresses of those that it points to.
pub(super) fn build(facs: u32, dsdt: u32) -> FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .firmware_ctrl_32(facs)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // These two say that there is no fixed button.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        // The RTC does not wake the machine through fixed registers.
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = dsdt.into();
    fadt.x_dsdt = u64::from(dsdt).into();
    fadt.sci_int = (IrqRouter::SCI as u16).into();
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | VGA_NOT_PRESENT).into();
    fadt.pm1a_evt_blk = u32::from(PM1_EVENT_PORT).into();
    fadt.pm1_evt_len = EVENT_BYTES;
    fadt.x_pm1a_evt_blk = port(PM1_EVENT_PORT, EVENT_BYTES, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(PM1_CONTROL_PORT).into();
    fadt.pm1_cnt_len = CONTROL_BYTES;
    fadt.x_pm1a_cnt_blk = port(PM1_CONTROL_PORT, CONTROL_BYTES, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(PM_TIMER_PORT).into();
    fadt.pm_tmr_len = TIMER_BYTES;
    fadt.x_pm_tmr_blk = port(PM_TIMER_PORT, TIMER_BYTES, AccessSize::DwordAccess);
    fadt.reset_reg = port(RESET_CONTROL_PORT, 1, AccessSize::ByteAccess);
    fadt.reset_value = RESET_CONTROL_VALUE;
    fadt.finalize()
}
