// SPDX-License-Identifier: MIT OR Apache-2.0
//! A multiboot kernel that is an ELF file (Multiboot 0.6.96, 3.1).
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(loader);

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .entry, "a", @progbits
    .balign 4
    .long 0x1BADB002
    .long 3
    .long -(0x1BADB002 + 3)
    "#
);
