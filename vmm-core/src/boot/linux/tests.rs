// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::{
    boot::{
        ImageFormat, MemoryKind, MemoryRange, load as load_any,
        test_memory::{TestGuest, garbage, modules},
    },
    state::SegmentRegister,
};

const PREFERRED: u64 = 0x100_0000;
const INIT_SIZE: u64 = 0x20_0000;
const SETUP_SECTORS: usize = 3;
const PAYLOAD: usize = 0x2000;

/// A file that says of itself what a 64-bit kernel says.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; (SETUP_SECTORS + 1) * 512];
    file[0x1F1] = SETUP_SECTORS as u8;
    put(&mut file, 0x1F4, &(PAYLOAD as u32 / 16).to_le_bytes());
    put(&mut file, 0x1FE, &[0x55, 0xAA, 0xEB, 0x6A]);
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x020Fu16.to_le_bytes());
    put(&mut file, 0x22C, &0x7FFF_FFFFu32.to_le_bytes());
    put(&mut file, 0x230, &0x20_0000u32.to_le_bytes());
    file[0x234] = 1;
    put(&mut file, 0x236, &3u16.to_le_bytes());
    put(&mut file, 0x238, &2047u32.to_le_bytes());
    put(&mut file, 0x258, &PREFERRED.to_le_bytes());
    put(&mut file, 0x260, &(INIT_SIZE as u32).to_le_bytes());
    file.extend((0..PAYLOAD).map(|i| (i / 7) as u8));
    file
}

/// The same of a 32-bit kernel.
fn bzimage_32() -> Vec<u8> {
    let mut file = bzimage();
    file[0x211] = 1;
    put(&mut file, 0x22C, &0x37FF_FFFFu32.to_le_bytes());
    put(&mut file, 0x236, &0u16.to_le_bytes());
    file
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn images<'a>(kernel: &'a [u8], guest: &'a TestGuest) -> BootImages<'a> {
    BootImages {
        command_line: "console=ttyS0",
        rsdp: Some(GuestPhysAddr::new(0xE_0000)),
        ..BootImages::of(kernel, &guest.map)
    }
}

fn load_one(guest: &TestGuest, kernel: &[u8]) -> Result<InitialState, BootError> {
    load_any(&guest.memory, &images(kernel, guest))
}

/// Loads a kernel with a changed header.
fn load_changed(mib: u64, at: usize, bytes: &[u8]) -> Result<InitialState, BootError> {
    let mut kernel = bzimage();
    put(&mut kernel, at, bytes);
    load_one(&TestGuest::with_mib(mib), &kernel)
}

#[test]
fn kernel_finds_everything_where_the_protocol_says() {
    let guest = TestGuest::with_mib(64);
    garbage(&guest.memory, 0..0x9_0000);
    let kernel = bzimage();
    let initrd: [&[u8]; 2] = [b"first", b"second!!"];
    let state =
        load(&guest.memory, &BootImages { modules: &modules(&initrd), ..images(&kernel, &guest) })
            .unwrap();

    assert_eq!(state.rip, PREFERRED + 0x200);
    assert_eq!(guest.bytes(PREFERRED, PAYLOAD), kernel[kernel.len() - PAYLOAD..]);

    let page = state.gprs[Gpr::Rsi as usize];
    assert_eq!(guest.bytes(page + 0x1F1, 0x1F), kernel[0x1F1..0x210]);
    assert_eq!(guest.bytes(page + 0x210, 1), [0xFF]);
    assert_eq!(guest.u64(page + 0x70), 0xE_0000);
    assert_eq!(guest.bytes(page, 0x70), [0; 0x70]);

    let command_line = u64::from(guest.u32(page + 0x228));
    assert_eq!(guest.bytes(command_line, 14), b"console=ttyS0\0");

    let start = u64::from(guest.u32(page + 0x218));
    assert_eq!(guest.u32(page + 0x21C), 16);
    assert_eq!(guest.bytes(start, 16), b"first\0\0\0second!!");
    assert_eq!(start, (64 << 20) - 4096);

    assert_eq!(guest.bytes(page + 0x1E8, 1), [guest.map.len() as u8]);
    for (index, range) in guest.map.iter().enumerate() {
        let at = page + 0x2D0 + 20 * index as u64;
        assert_eq!(guest.u64(at), range.start.as_u64());
        assert_eq!(guest.u64(at + 8), range.bytes);
        assert_eq!(guest.u32(at + 16), range.kind as u32);
    }
}

#[test]
fn initrd_may_end_where_memory_ends() {
    let guest = TestGuest::with_mib(64);
    let kernel = bzimage();
    let page = [5; 4096];
    let images = BootImages { modules: &modules(&[&page, &[]]), ..images(&kernel, &guest) };
    load(&guest.memory, &images).unwrap();
    assert_eq!(guest.bytes((64 << 20) - 4096, 4096), page);
}

#[test]
fn a_32_bit_kernel_starts_in_protected_mode_without_paging() {
    let guest = TestGuest::with_mib(64);
    garbage(&guest.memory, 0..0x9_0000);
    let kernel = bzimage_32();
    let initrd: [&[u8]; 1] = [b"first"];
    let images = BootImages { modules: &modules(&initrd), ..images(&kernel, &guest) };
    let state = load(&guest.memory, &images).unwrap();

    assert_eq!(state.rip, PREFERRED);
    assert_eq!(guest.bytes(PREFERRED, PAYLOAD), kernel[kernel.len() - PAYLOAD..]);
    assert_eq!((state.control.cr0, state.control.cr4, state.control.efer), (0x11, 0, 0));
    let mut gprs = state.gprs;
    let page = core::mem::take(&mut gprs[Gpr::Rsi as usize]);
    assert_eq!(gprs, [0; 16]);
    assert_eq!(guest.bytes(page + 0x1F1, 0x1F), kernel[0x1F1..0x210]);
    assert_eq!(u64::from(guest.u32(page + 0x214)), PREFERRED);
    let start = u64::from(guest.u32(page + 0x218));
    assert_eq!(guest.bytes(start, 5), b"first");
    check_segments(&guest, &state);
}

#[test]
fn a_32_bit_kernel_says_where_it_lies_and_what_it_reaches() {
    let mut guest = TestGuest::with_mib(64);
    guest.map.push(MemoryRange {
        start: GuestPhysAddr::new(PREFERRED),
        bytes: 0x1000,
        kind: MemoryKind::Reserved,
    });
    let mut kernel = bzimage_32();
    let state = load_one(&guest, &kernel).unwrap();
    assert_eq!(state.rip, PREFERRED + 0x20_0000);
    let page = state.gprs[Gpr::Rsi as usize];
    assert_eq!(u64::from(guest.u32(page + 0x214)), state.rip);

    // It cannot find its RAM disk above 4 GiB, whatever it says.
    put(&mut kernel, 0x236, &2u16.to_le_bytes());
    put(&mut kernel, 0x22C, &0xFFFu32.to_le_bytes());
    let images = BootImages { modules: &modules(&[&[7; 64]]), ..images(&kernel, &guest) };
    assert!(matches!(load(&guest.memory, &images), Err(BootError::InitrdDoesNotFit { .. })));
}

#[test]
fn gdt_holds_the_segments_that_are_loaded() {
    let guest = TestGuest::with_mib(64);
    let state = load_one(&guest, &bzimage()).unwrap();
    check_segments(&guest, &state);
}

fn check_segments(guest: &TestGuest, state: &InitialState) {
    for register in [SegmentRegister::Cs, SegmentRegister::Ds, SegmentRegister::Ss] {
        let segment = state.segments[register as usize];
        assert!(segment.selector + 7 <= state.gdtr.limit);
        let descriptor = guest.u64(state.gdtr.base + u64::from(segment.selector));
        let attributes = descriptor >> 40 & 0xFF | descriptor >> 44 & 0xF00;
        assert_eq!(u64::from(u32::from(segment.attributes)), attributes);
    }
    assert_eq!(state.segments[SegmentRegister::Cs as usize].selector, 0x10);
    assert_eq!(state.segments[SegmentRegister::Ds as usize].selector, 0x18);
    assert_eq!(state.rflags, 2);
}

#[test]
fn relocatable_kernel_moves_out_of_reserved_memory() {
    let mut guest = TestGuest::with_mib(64);
    guest.map.push(MemoryRange {
        start: GuestPhysAddr::new(PREFERRED + 0x1000),
        bytes: 0x1000,
        kind: MemoryKind::Reserved,
    });
    let state = load_one(&guest, &bzimage()).unwrap();
    assert_eq!(state.rip, PREFERRED + 0x20_0000 + 0x200);
    let mut fixed = bzimage();
    fixed[0x234] = 0;
    assert!(matches!(load_one(&guest, &fixed), Err(BootError::KernelDoesNotFit { .. })));
}

#[test]
fn too_little_memory_is_said_in_one_line() {
    let error = load_one(&TestGuest::with_mib(16), &bzimage()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel needs 2 MiB of memory from 0x1000000 on, the VM's memory ends at 0x1000000; \
         give the VM at least 18 MiB"
    );
    assert!(load_one(&TestGuest::with_mib(18), &bzimage()).is_ok());
    let guest = TestGuest::with_mib(20);
    let kernel = bzimage();
    let initrd = vec![0; 16 << 20];
    let images = BootImages { modules: &modules(&[&initrd]), ..images(&kernel, &guest) };
    assert_eq!(
        load(&guest.memory, &images).unwrap_err().to_string(),
        "the initial RAM disk has 16 MiB, the VM has room for 15 MiB beside the kernel; \
         give the VM more memory"
    );
}

#[test]
fn initrd_stays_in_the_reach_of_the_kernel() {
    let guest = TestGuest::with_mib(64);
    let mut kernel = bzimage();
    put(&mut kernel, 0x22C, &0x01FF_FFFFu32.to_le_bytes());
    let initrd: [&[u8]; 1] = [&[7; 5000]];
    let both = BootImages { modules: &modules(&initrd), ..images(&kernel, &guest) };
    let state = load(&guest.memory, &both).unwrap();
    let start = guest.u32(state.gprs[Gpr::Rsi as usize] + 0x218);
    assert_eq!(start, 0x0200_0000 - 0x2000);
    put(&mut kernel, 0x22C, &0xFFFu32.to_le_bytes());
    let both = BootImages { modules: &modules(&initrd), ..images(&kernel, &guest) };
    let state = load(&guest.memory, &both).unwrap();
    let start = guest.u32(state.gprs[Gpr::Rsi as usize] + 0x218);
    assert_eq!(start, (64 << 20) - 0x2000, "a kernel that finds it anywhere");
    put(&mut kernel, 0x236, &1u16.to_le_bytes());
    let both = BootImages { modules: &modules(&initrd), ..images(&kernel, &guest) };
    assert!(matches!(load(&guest.memory, &both), Err(BootError::InitrdDoesNotFit { .. })));
}

#[test]
fn refuses_command_lines_that_the_kernel_would_not_see() {
    let guest = TestGuest::with_mib(64);
    let kernel = bzimage();
    let with = |command_line| BootImages { command_line, ..images(&kernel, &guest) };
    let long = "x".repeat(2048);
    let error = BootError::CommandLineTooLong { bytes: 2048, limit: 2047 };
    assert_eq!(load(&guest.memory, &with(&long)), Err(error));
    assert!(load(&guest.memory, &with(&long[1..])).is_ok());
    assert_eq!(load(&guest.memory, &with("a\0b")), Err(BootError::CommandLineZero));
}

#[test]
fn refuses_kernels_that_it_cannot_start() {
    let old = load_changed(64, 0x206, &0x020Bu16.to_le_bytes());
    assert_eq!(old, Err(BootError::ProtocolTooOld { version: 0x20B }));
    assert_eq!(load_changed(64, 0x236, &[2, 0]), Err(BootError::LoadedLow));
    for alignment in [0, 3, 1 << 31] {
        let result = load_changed(64, 0x230, &u32::to_le_bytes(alignment));
        assert!(matches!(result, Err(BootError::Malformed(_))));
    }
    assert!(matches!(load_changed(64, 0x1F4, &[0; 4]), Err(BootError::Malformed(_))));
    assert!(matches!(load_changed(64, 0x201, &[8]), Err(BootError::Malformed(_))));
    let huge = load_changed(64, 0x1F4, &[0xFF; 4]);
    assert!(matches!(huge, Err(BootError::Truncated { what: "the kernel proper", .. })));
    let far = load_changed(64, 0x258, &[0xFF; 8]);
    assert!(matches!(far, Err(BootError::KernelDoesNotFit { .. })));
}

#[test]
fn zero_setup_sectors_mean_four() {
    let mut kernel = bzimage();
    kernel[0x1F1] = 0;
    assert!(matches!(
        load_one(&TestGuest::with_mib(64), &kernel),
        Err(BootError::Truncated { what: "the kernel proper", .. })
    ));
    let tail = kernel.len();
    kernel.splice(tail..tail, [0xEE; 512]);
    let guest = TestGuest::with_mib(64);
    load_one(&guest, &kernel).unwrap();
    assert_eq!(guest.bytes(PREFERRED + PAYLOAD as u64 - 512, 512), [0xEE; 512]);
}

#[test]
fn memory_map_has_a_limit() {
    let guest = TestGuest::with_mib(64);
    let kernel = bzimage();
    let mut map = guest.map.clone();
    let filler = MemoryRange { kind: MemoryKind::Reserved, ..map[1] };
    map.resize(129, filler);
    let images = BootImages { memory_map: &map, ..images(&kernel, &guest) };
    let error = BootError::MemoryMapTooLong { entries: 129, limit: 128 };
    assert_eq!(load(&guest.memory, &images), Err(error));
}

#[test]
fn memory_that_does_not_exist_is_an_error() {
    let mut guest = TestGuest::with_mib(2);
    guest.map[2].bytes = 64 << 20;
    assert!(matches!(load_one(&guest, &bzimage()), Err(BootError::Memory(_))));
}

#[test]
fn files_that_are_no_kernel_are_told_what_was_expected() {
    let error = ImageFormat::detect(b"#!/bin/sh\n").unwrap_err();
    assert_eq!(error, BootError::UnknownFormat { bytes: 10 });
    assert!(error.to_string().contains("neither a Linux bzImage nor an ELF file"));
    assert_eq!(ImageFormat::detect(&[]), Err(BootError::UnknownFormat { bytes: 0 }));
    assert_eq!(ImageFormat::detect(&bzimage()), Ok(ImageFormat::LinuxBzImage));
}

#[test]
fn every_truncation_is_an_error() {
    let guest = TestGuest::with_mib(32);
    let kernel = bzimage();
    for length in (0..0x280).chain((0x280..kernel.len()).step_by(97)) {
        let result = load_one(&guest, &kernel[..length]);
        assert!(result.is_err(), "{length} of {} bytes", kernel.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_headers_never_panic_or_load_outside_of_usable_memory(
        changes in prop::collection::vec((0x1F1usize..0x290, any::<u8>()), 1..12),
        initrd in 0usize..0x3000,
    ) {
        let guest = TestGuest::with_mib(24);
        garbage(&guest.memory, 0x9_FC00..0x10_0000);
        let mut kernel = bzimage();
        for (at, value) in changes {
            kernel[at] = value;
        }
        let initrd = vec![1; initrd];
        let images = BootImages { modules: &modules(&[&initrd]), ..images(&kernel, &guest) };
        if let Ok(state) = load_any(&guest.memory, &images) {
            prop_assert!(state.rip >= 0x1000 && state.rip < 24 << 20);
        }
        let reserved = guest.bytes(0x9_FC00, 0x10_0000 - 0x9_FC00);
        prop_assert!(reserved.iter().all(|&byte| byte == 0xA5));
    }

    #[test]
    fn random_files_never_panic(mut file in prop::collection::vec(any::<u8>(), 0..0x600)) {
        let guest = TestGuest::with_mib(2);
        let _ = load_one(&guest, &file);
        for (at, bytes) in [(0x1FE, &[0x55, 0xAA][..]), (0x202, b"HdrS")] {
            if file.len() >= at + bytes.len() {
                put(&mut file, at, bytes);
            }
        }
        let _ = load_one(&guest, &file);
    }
}
