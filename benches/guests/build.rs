// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the guests at the fixed physical address that their runtime has.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("{folder}/../../guest-images/bare-metal/link.ld");
    println!("cargo::rerun-if-changed={script}");
    if std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default() == "none" {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
}
