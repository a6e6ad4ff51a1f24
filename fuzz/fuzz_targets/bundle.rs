// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bundles and manifests: any archive is read or refused, and what was read is what was checked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{Bundle, Manifest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::from_json(bytes) {
        assert!(manifest.validate().is_ok(), "an invalid manifest was accepted");
    }
    if let Ok(bundle) = Bundle::read(bytes) {
        for vm in bundle.manifest().stages.iter().flat_map(|stage| &stage.vms) {
            assert!(bundle.image(&vm.kernel).is_some(), "a missing image was accepted");
        }
    }
});
