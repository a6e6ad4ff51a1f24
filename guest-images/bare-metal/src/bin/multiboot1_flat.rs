// SPDX-License-Identifier: MIT OR Apache-2.0
//! A multiboot kernel whose header says where the file goes (Multiboot 0.6.96, 3.1.3).
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(loader);

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .entry, "a", @progbits
    # So that the header is not at the start of the file.
    .skip 64, 0xCC
header:
    .long 0x1BADB002
    .long 0x10003
    .long -(0x1BADB002 + 0x10003)
    .long header                    # header_addr
    .long image_start               # load_addr
    .long 0                         # load_end_addr: all of the file
    .long image_end                 # bss_end_addr
    .long boot32                    # entry_addr
    "#
);
