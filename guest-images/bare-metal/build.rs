// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the guests at their fixed physical addresses, in the formats that they are started from.

/// Guests that are no PVH kernels: name, linker script, further arguments for the linker.
const OTHERS: &[(&str, &str, &[&str])] = &[
    ("firmware", "firmware.ld", &["--oformat=binary"]),
    ("multiboot1", "image.ld", &["--defsym=image_base=0x100000"]),
    ("multiboot1_flat", "image.ld", &["--defsym=image_base=0x100000", "--oformat=binary"]),
    ("multiboot2", "image.ld", &["--defsym=image_base=0x100000"]),
    ("raw", "flat.ld", &["--defsym=image_base=0x200000", "--oformat=binary"]),
    ("raw_real", "flat.ld", &["--defsym=image_base=0x10000", "--oformat=binary"]),
];

fn main() {
    let target_os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for script in ["link.ld", "image.ld", "flat.ld", "firmware.ld"] {
        println!("cargo::rerun-if-changed={script}");
    }
    println!("cargo::rerun-if-changed=src/bin");
    if target_os != "none" {
        return;
    }
    let files = std::fs::read_dir(format!("{folder}/src/bin")).into_iter().flatten().flatten();
    for file in files {
        let name = file.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let other = OTHERS.iter().find(|other| other.0 == name);
        let (script, arguments) = other.map_or(("link.ld", &[][..]), |other| (other.1, other.2));
        println!("cargo::rustc-link-arg-bin={name}=-T{folder}/{script}");
        for argument in arguments {
            println!("cargo::rustc-link-arg-bin={name}={argument}");
        }
    }
}
