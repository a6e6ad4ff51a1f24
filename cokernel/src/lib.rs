// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lightweight, tickless co-kernel.
//!
//! It owns a bare machine (or a part of one): it boots on all CPUs, parks them, and runs what
//! the binary built on it sends them. It has no processes, no scheduler and no periodic work,
//! and knows nothing of what runs on it.
//!
//! A binary is made with [`entry!`] and a build script that passes the linker script on (see
//! `build.rs` of this crate). It must be built for `x86_64-unknown-none`; elsewhere only the
//! pure logic exists, for its unit tests. After linking, the tool `embed-symbols` of this
//! crate puts the symbol table in, so that backtraces have names:
//!
//! ```text
//! cargo build --release -p cokernel --target x86_64-unknown-none --features selftest
//! cargo run --release -p cokernel --features embed-symbols --bin embed-symbols -- \
//!     target/x86_64-unknown-none/release/cokernel-selftest
//! ```
//!
//! The image boots by PVH (QEMU's `-kernel`, with `-initrd` as the one module) and by
//! multiboot2 (GRUB). The first serial port is a byte stream for the binary, the second one
//! carries the log.
//!
//! Command line: `loglevel=LEVEL` (off, error, warn, info, debug, trace), `log=e9` (log to
//! port 0xE9, too).
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
mod address;
#[cfg(target_os = "none")]
mod apic;
pub mod boot;
#[cfg(target_os = "none")]
pub mod console;
pub mod cpu;
#[cfg(target_os = "none")]
mod facts;
#[cfg(target_os = "none")]
pub mod interrupts;
pub mod irq_lock;
#[cfg(target_os = "none")]
mod logger;
#[cfg(target_os = "none")]
pub mod machine;
pub mod memory;
pub mod one_line;
#[cfg(target_os = "none")]
mod panic;
pub mod rtc;
#[cfg(target_os = "none")]
mod serial;
#[cfg(target_os = "none")]
pub mod smp;
pub mod symbols;
pub mod time;

pub use address::{PAGE_SIZE, PhysAddr, PhysMemory};
pub use boot::BootInfo;
#[cfg(target_os = "none")]
pub use {
    facts::{MachineFacts, acpi, machine_facts},
    logger::write_line,
};

/// What `main` returns: the code with which the machine is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitCode(pub u8);

/// Defines what the co-kernel runs: a function from `&'static BootInfo` to [`ExitCode`], and
/// how the machine is ended.
///
/// The function runs on the boot CPU with interrupts enabled, when the heap, the log and all
/// CPUs are up.
///
/// ```ignore
/// cokernel::entry!(main, MachineExit { debug_exit_port: 0xF4, panic_code: 0x12 });
/// ```
#[macro_export]
macro_rules! entry {
    ($main:path, $exit:expr) => {
        #[unsafe(no_mangle)]
        fn __cokernel_main(boot: &'static $crate::BootInfo) -> $crate::ExitCode {
            let main: fn(&'static $crate::BootInfo) -> $crate::ExitCode = $main;
            main(boot)
        }

        #[unsafe(no_mangle)]
        fn __cokernel_exit() -> $crate::machine::MachineExit {
            $exit
        }
    };
}
