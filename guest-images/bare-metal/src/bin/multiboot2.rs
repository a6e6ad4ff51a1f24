// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Multiboot2 kernel that is an ELF file (Multiboot2 2.0, 3.1).
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(loader);

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .entry, "a", @progbits
    .balign 8
header:
    .long 0xE85250D6
    .long 0                         # i386
    .long header_end - header
    .long -(0xE85250D6 + (header_end - header))
    .balign 8
request:
    .word 1, 0
    .long request_end - request
    .long 1, 2, 3, 4, 6             # command line, name, modules, memory, memory map
request_end:
    .balign 8
    .word 6, 0                      # modules at page boundaries
    .long 8
    .word 0, 0
    .long 8
header_end:
    "#
);
