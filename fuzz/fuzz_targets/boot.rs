// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boot image loaders: any file is either loaded inside guest memory or refused with a reason.
#![no_main]

use std::sync::OnceLock;

use alcazar_fuzz::host;
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm_core::{
    boot::{self, BootImages},
    memory::MemoryLayout,
    vm::{VmBuilder, VmConfig},
};

const MEMORY: u64 = 16 << 20;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    kernel: &'a [u8],
    modules: Vec<&'a [u8]>,
    command_line: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    static BUILDER: OnceLock<VmBuilder> = OnceLock::new();
    let builder = BUILDER.get_or_init(|| {
        let config = VmConfig { memory_bytes: MEMORY, vcpus: 1 };
        VmBuilder::new(host(), config).expect("the mock host has memory")
    });
    let map = vmm_devices::memory_map(MemoryLayout::of(MEMORY));
    let images = BootImages {
        kernel: input.kernel,
        initrd: &input.modules,
        command_line: input.command_line,
        memory_map: &map,
        rsdp: None,
    };
    if let Err(error) = boot::load(builder.memory(), &images) {
        assert!(!error.to_string().is_empty());
    }
});
