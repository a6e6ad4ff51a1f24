// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boot image loaders: any file is either loaded inside guest memory or refused with a reason.
//!
//! An input is a kernel file and after it [`Trailer`]: how it is started, and what else is given.

use std::cell::OnceCell;

use crate::host::host;
use vmm_core::{
    GuestPhysAddr,
    boot::{self, BootImages, InitialState, Module, RawMode, RawStart, Start},
    memory::{MIN_MEMORY, MemoryLayout},
    state::SegmentRegister,
    vm::{VmBuilder, VmConfig},
};

const MEMORY: u64 = 16 << 20;

/// What follows the kernel file: the last bytes of an input.
struct Trailer {
    how: How,
    /// Number of modules, which are pieces of the kernel file.
    modules: usize,
    /// Make the sums of multiboot headers right, which no mutation would.
    mend_sums: bool,
    /// Length of the command line, which is the start of the kernel file.
    command_line: usize,
    load_address: u64,
    entry_offset: u64,
}

enum How {
    Detect,
    Raw(RawMode),
    Firmware,
}

impl Trailer {
    const BYTES: usize = 12;

    fn parse(bytes: &[u8; Self::BYTES]) -> Self {
        let [how, modules, mend, command_line, a0, a1, a2, a3, e0, e1, e2, e3] = *bytes;
        Self {
            how: match how % 8 {
                1 => How::Raw(RawMode::Protected),
                2 => How::Raw(RawMode::Real),
                3 => How::Firmware,
                _ => How::Detect,
            },
            modules: usize::from(modules % 4),
            mend_sums: mend % 2 == 0,
            command_line: command_line.into(),
            load_address: u32::from_le_bytes([a0, a1, a2, a3]).into(),
            entry_offset: u32::from_le_bytes([e0, e1, e2, e3]).into(),
        }
    }
}

/// Gives every magic number of a multiboot header the sum that belongs to it.
fn mend_sums(kernel: &mut [u8]) {
    const MAGICS: [(u32, usize); 2] = [(0x1BAD_B002, 2), (0xE852_50D6, 3)];
    for at in (0..kernel.len().saturating_sub(15)).step_by(4) {
        let field = |index: usize| {
            let start = at + 4 * index;
            u32::from_le_bytes(kernel[start..start + 4].try_into().expect("four bytes"))
        };
        let Some((_, last)) = MAGICS.iter().find(|(magic, _)| field(0) == *magic) else { continue };
        let sum = (0..*last).map(field).fold(0, u32::wrapping_add);
        let start = at + 4 * last;
        kernel[start..start + 4].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    }
}

fn builder(memory_bytes: u64) -> VmBuilder {
    VmBuilder::new(host(), VmConfig { memory_bytes, vcpus: 1 }).expect("the mock host has memory")
}

fn firmware(image: &[u8]) {
    let mut builder = builder(MIN_MEMORY);
    match builder.map_firmware(image) {
        Ok(()) => {
            let mut last = [0; 16];
            builder.memory().read(GuestPhysAddr::new(0xFFFF_FFF0), &mut last).expect("a ROM");
            assert_eq!(last, image[image.len() - 16..], "the reset vector");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The vCPU starts with code in memory.
fn check(builder: &VmBuilder, state: &InitialState) {
    let code = state.segments[SegmentRegister::Cs as usize].base;
    let entry = GuestPhysAddr::new(code.wrapping_add(state.rip));
    assert!(builder.memory().contains(entry), "the entry point {entry} is not in memory");
}

thread_local! {
    /// Where the images of all inputs of this thread are loaded.
    static BUILDER: OnceCell<VmBuilder> = const { OnceCell::new() };
}

/// Starts a guest with the images that `input` holds.
pub fn run(input: &[u8]) {
    let Some((kernel, trailer)) = input.split_last_chunk() else { return };
    let trailer = Trailer::parse(trailer);
    let mut kernel = kernel.to_vec();
    if trailer.mend_sums {
        mend_sums(&mut kernel);
    }
    let mode = match trailer.how {
        How::Firmware => return firmware(&kernel),
        How::Detect => None,
        How::Raw(mode) => Some(mode),
    };
    let Trailer { load_address, entry_offset, .. } = trailer;
    let start = mode
        .map_or(Start::Detect, |mode| Start::Raw(RawStart { load_address, entry_offset, mode }));
    let map = vmm_devices::memory_map(MemoryLayout::of(MEMORY));
    let command_line = &kernel[..trailer.command_line.min(kernel.len())];
    let command_line = String::from_utf8_lossy(command_line);
    let module = Module { content: &kernel[kernel.len() / 2..], command_line: &command_line };
    let images = BootImages {
        kernel: &kernel,
        start,
        modules: &[module; 4][..trailer.modules],
        command_line: &command_line,
        memory_map: &map,
        rsdp: None,
    };
    BUILDER.with(|builder_cell| {
        let builder = builder_cell.get_or_init(|| builder(MEMORY));
        match boot::load(builder.memory(), &images) {
            Ok(state) => check(builder, &state),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}
