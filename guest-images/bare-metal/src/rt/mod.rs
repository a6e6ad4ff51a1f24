// SPDX-License-Identifier: MIT OR Apache-2.0
//! The runtime that the guests share.

#[macro_use]
pub mod console;
#[macro_use]
pub mod trap;
pub mod acpi;
pub mod apic;
pub mod boot;
pub mod cell;
pub mod cpu;
pub mod exit;
pub mod handover;
mod heap;
pub mod interrupts;
pub mod mode_switch;
pub mod paging;
pub mod pic;
pub mod pit;
pub mod processors;
pub mod report;
pub mod segments;
pub mod start_info;
