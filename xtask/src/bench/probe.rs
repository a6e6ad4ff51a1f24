// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the time-stamp counter at a kernel's entry on the bare machine.
//!
//! A kernel of a few bytes is booted on the same machine in place of the real one. Firmware and
//! loader do the same for both: they copy by DMA, which takes no instructions. It starts where
//! any bzImage starts, in real mode at the beginning of its setup code, reads the counter, sends
//! it out of the first serial port and ends the machine.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::platform::{Boot, MachineConfig};
use crate::process::OwnedChild;
use crate::run::plan::Plan;

/// Real-mode code, entered after the header.
const CODE: &[u8] = &[
    0x0F, 0x31, // rdtsc
    0x66, 0x89, 0xC3, // mov ebx, eax
    0x66, 0x89, 0xD6, // mov esi, edx
    0xBA, 0xF8, 0x03, // mov dx, 0x3F8
    0xB9, 0x08, 0x00, // mov cx, 8
    0x88, 0xD8, // again: mov al, bl
    0xEE, // out dx, al
    0x66, 0x0F, 0xAC, 0xF3, 0x08, // shrd ebx, esi, 8
    0x66, 0xC1, 0xEE, 0x08, // shr esi, 8
    0xE2, 0xF2, // loop again
    0xBA, 0xF4, 0x00, // mov dx, 0xF4
    0xEE, // out dx, al
    0xF4, // hlt
];

/// Where the code is; the jump at 0x200 leads there.
const CODE_AT: usize = 0x280;

/// The smallest bzImage: a boot sector, one sector of setup code, one sector of "kernel"
/// (Linux, Documentation/arch/x86/boot.rst).
fn image() -> Vec<u8> {
    const SECTOR: usize = 512;
    let mut image = vec![0; 3 * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in image.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0x1F1, &[1]);
    put(0x1F4, &32_u32.to_le_bytes());
    put(0x1FE, &[0x55, 0xAA]);
    put(0x200, &[0xEB, 0x7E]);
    put(0x202, b"HdrS");
    put(0x206, &0x20F_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(0x238, &255_u32.to_le_bytes());
    put(CODE_AT, CODE);
    image
}

/// The counter at a kernel's entry on the plan's machine.
///
/// # Errors
/// When the machine does not start or says something else.
pub fn kernel_entry(plan: &Plan) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let kernel = folder.path().join("probe");
    fs::write(&kernel, image())?;
    let boot = Boot::Kernel { kernel, initrd: None, command_line: String::new() };
    let machine = MachineConfig { boot, ..plan.machine.clone() };
    let console = folder.path().join("console");
    let mut command = machine.command()?;
    command.stdin(Stdio::null()).stdout(File::create(&console)?).stderr(Stdio::null());
    let mut child = OwnedChild::spawn(&mut command)?;
    let status = child.wait_until(Instant::now() + Duration::from_secs(60))?;
    let status = status.context("the probe did not end")?;
    let bytes: Vec<u8> = fs::read(&console)?;
    ensure!(bytes.len() == 8, "the probe said {} bytes, expected 8 ({status})", bytes.len());
    let mut counter = [0; 8];
    counter.copy_from_slice(&bytes);
    Ok(u64::from_le_bytes(counter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jumps_lead_to_the_code() {
        let image = image();
        assert_eq!(0x202 + usize::from(image[0x201]), CODE_AT);
        assert_eq!(&image[CODE_AT..CODE_AT + 2], [0x0F, 0x31]);
        // The loop goes back to `again`.
        let end = CODE.iter().position(|&byte| byte == 0xE2).unwrap() + 2;
        let displacement = i32::from(CODE[end - 1].cast_signed());
        assert_eq!(i32::try_from(end).unwrap() + displacement, 14);
        assert_eq!(&CODE[14..16], [0x88, 0xD8]);
    }
}
