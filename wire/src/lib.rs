// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data that crosses between the tools and the co-kernel.
//!
//! A *bundle* is a newc cpio archive that the boot loader hands to the co-kernel as its one
//! module. Its member [`MANIFEST_NAME`] is a [`Manifest`] in JSON; the other members are the
//! images that the manifest names. The co-kernel answers on its log channel, among ordinary
//! log lines, with one line of [`REPORT_PREFIX`] followed by a [`RunReport`] in JSON.
//!
//! A bundle may hold a [`Torture`] besides, as the member [`TORTURE_NAME`]; its outcome is a line
//! of [`TORTURE_PREFIX`] followed by a [`TortureReport`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bundle;
mod interrupts;
mod manifest;
mod report;
mod torture;

pub use bundle::{Bundle, BundleError};
pub use interrupts::{IoApicInput, LocalApicReport, LocalVector};
pub use manifest::{
    Apic, EntryFault, FORMAT_VERSION, GuestConsole, MANIFEST_NAME, Manifest, ManifestError, Module,
    Paging, RawMode, ShadowSettings, Stage, Start, VmDescription,
};
pub use report::{
    Counter, End, EndKind, ExitCounter, GuestSize, HostMemory, Machine, Milestone, REPORT_PREFIX,
    RunReport, VcpuReport, VmMemory, VmReport,
};
pub use torture::{
    Damage, NEIGHBOUR_END_BYTE, ROUND_PREFIX, STOP_BYTE, TORTURE_NAME, TORTURE_PREFIX, Torture,
    TortureError, TortureFault, TortureReport,
};

/// Exit codes with which the co-kernel ends the machine, written to the `isa-debug-exit`
/// port; QEMU turns a code `c` into the exit status `c << 1 | 1`.
pub mod machine_exit {
    /// I/O port of QEMU's `isa-debug-exit` device as the tools configure it.
    pub const PORT: u16 = 0xF4;
    /// Start of the log line with which the co-kernel says its exit code, in decimal: for machines
    /// that have no such device.
    pub const LOG_PREFIX: &str = "@exit ";
    /// Everything in the manifest was run; the report says how each VM ended.
    pub const DONE: u8 = 0x10;
    /// The bundle or manifest was refused; the log says why.
    pub const BAD_BUNDLE: u8 = 0x11;
    /// The co-kernel panicked; the log has registers and a backtrace.
    pub const PANIC: u8 = 0x12;
    /// The machine lacks something that is needed, hardware virtualization for example.
    pub const UNSUPPORTED: u8 = 0x13;
}
