// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the self-test with the co-kernel's linker script and tells dependents where it is.
//!
//! A binary crate on top of the co-kernel has this build script:
//!
//! ```ignore
//! let script = std::env::var("DEP_COKERNEL_LINKER_SCRIPT").expect("set by the cokernel crate");
//! if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
//!     println!("cargo:rustc-link-arg-bins=-T{script}");
//! }
//! ```

use std::{env, path::Path};

fn main() {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    let script = Path::new(&manifest_dir).join("link.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    println!("cargo:linker_script={}", script.display());
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    }
}
