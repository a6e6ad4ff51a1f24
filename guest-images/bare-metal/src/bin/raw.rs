// SPDX-License-Identifier: MIT OR Apache-2.0
//! A flat image that is entered in protected mode.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(loader);

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .entry, "ax", @progbits
    .code32
    # The tests enter at offset 0x20.
    .skip 0x20, 0xCC
    xor eax, eax
    jmp boot32
    .code64
    "#
);
