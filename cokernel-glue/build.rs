// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the image with the co-kernel's linker script.

fn main() {
    let script = std::env::var("DEP_COKERNEL_LINKER_SCRIPT").expect("set by the cokernel crate");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{script}");
    }
}
