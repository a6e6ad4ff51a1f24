// SPDX-License-Identifier: MIT OR Apache-2.0
//! Multiboot 0.6.96 and Multiboot2 2.0: kernels entered in 32-bit protected mode with a magic
//! number in EAX and the address of the boot information in EBX.

mod address_form;
mod common;
pub(super) mod v1;
mod v1_header;
pub(super) mod v2;
mod v2_header;
mod v2_information;

#[cfg(test)]
mod tests;
