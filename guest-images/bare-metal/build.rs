// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the guests at their fixed physical address.

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    let target_os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if target_os == "none" {
        println!("cargo::rustc-link-arg-bins=-T{folder}/link.ld");
    }
}
