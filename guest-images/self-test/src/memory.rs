// SPDX-License-Identifier: MIT OR Apache-2.0
//! The size of memory, and that all of it that can be had keeps data.

use std::fs;
use std::io;

use crate::Options;
use crate::report::Report;

const MIB: u64 = 1 << 20;
/// Left to the kernel and to this program while memory is filled.
const SPARED: u64 = 32 * MIB;
/// What of the configured memory may be missing from the map: the PC's hole below 1 MiB.
const HOLE: u64 = MIB;
const WORD: u64 = size_of::<u64>() as u64;

/// Looks at the memory map, fills memory and reads it again.
pub fn run(report: &mut Report, options: &Options) {
    if let (Some(mib), Some(map)) =
        (options.get("mib"), report.need("map", fs::read_to_string("/proc/iomem")))
    {
        let bytes = system_ram(&map);
        let expected = mib.saturating_mul(MIB);
        let good = (expected.saturating_sub(HOLE)..=expected).contains(&bytes);
        report.check("map", good, format_args!("{bytes} bytes of {expected} are system RAM"));
    }
    let Some(info) = report.need("meminfo", fs::read_to_string("/proc/meminfo")) else { return };
    let Some(available) = field(&info, "MemAvailable:") else {
        report.check("available", false, "the kernel does not say");
        return;
    };
    let bytes = available.saturating_sub(SPARED) / MIB * MIB;
    let Some(area) = report.need("mmap", Area::map(bytes)) else { return };
    for salt in [0, u64::MAX] {
        let first_bad = area.fill_and_verify(salt);
        let shown = first_bad.map_or("keeps data".to_owned(), |at| format!("wrong at +{at:#x}"));
        report.check(
            format_args!("{} MiB", bytes / MIB),
            first_bad.is_none() && bytes > 0,
            format_args!("{shown} (pattern {salt:#x})"),
        );
    }
}

/// Bytes that a map in the form of /proc/iomem calls system RAM, at its top level.
fn system_ram(map: &str) -> u64 {
    let ranges = map.lines().filter_map(|line| line.strip_suffix(" : System RAM"));
    let bytes = ranges.filter_map(|range| {
        let (first, last) = range.split_once('-')?;
        let parse = |text| u64::from_str_radix(text, 16).ok();
        parse(last)?.checked_sub(parse(first)?)?.checked_add(1)
    });
    bytes.sum()
}

/// A field of /proc/meminfo in bytes.
fn field(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Anonymous memory.
struct Area {
    start: *mut u64,
    bytes: usize,
}

impl Area {
    fn map(bytes: u64) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: asks for new memory at no particular address.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), bytes })
    }

    /// Fills the area with words that differ from each other; offset of the first that does not
    /// read back.
    fn fill_and_verify(&self, salt: u64) -> Option<u64> {
        let words = self.bytes / size_of::<u64>();
        let pattern = |index: usize| (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt;
        for index in 0..words {
            // SAFETY: within the area. Volatile, so that the compiler does not forward the value.
            unsafe { self.start.add(index).write_volatile(pattern(index)) };
        }
        // SAFETY: as above.
        let read = |index| unsafe { self.start.add(index).read_volatile() };
        let bad = (0..words).find(|&index| read(index) != pattern(index))?;
        Some(bad as u64 * WORD)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the area is this value's own, and nobody has a reference into it.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_map_and_the_fields() {
        let map = "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n\
                   00100000-1fffffff : System RAM\n  01000000-01ffffff : Kernel code\n";
        assert_eq!(system_ram(map), 0x9EC00 + 0x1FF0_0000);
        assert_eq!(field("MemTotal: 9 kB\nMemAvailable:   12 kB\n", "MemAvailable:"), Some(12288));
        assert_eq!(field("MemTotal: 9 kB\n", "MemAvailable:"), None);
    }

    #[test]
    fn memory_of_this_machine_keeps_data() {
        assert_eq!(Area::map(MIB).unwrap().fill_and_verify(5), None);
    }
}
