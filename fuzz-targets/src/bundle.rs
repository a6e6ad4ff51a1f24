// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bundles and manifests: any archive is read or refused, and what was read is what was checked.

use wire::{Bundle, Manifest};

/// Reads `bytes` as each of the formats that cross between the tools and the co-kernel.
pub fn run(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::from_json(bytes) {
        assert!(manifest.validate().is_ok(), "an invalid manifest was accepted");
    }
    if let Ok(bundle) = Bundle::read(bytes) {
        for vm in bundle.manifest().stages.iter().flat_map(|stage| &stage.vms) {
            assert!(bundle.image(&vm.kernel).is_some(), "a missing image was accepted");
        }
    }
}
