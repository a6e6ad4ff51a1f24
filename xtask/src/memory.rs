// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory a guest needs, the machine around it gets, and this host has.

use anyhow::{Result, ensure};

use crate::kernel_file::KernelFile;

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;

/// For the co-kernel: image, heap, page tables, stacks.
const COKERNEL: u64 = 128 * MIB;

/// What Linux needs beside its image and initial RAM disk to come up, found by trying: the
/// Debian 12 cloud kernel boots to a shell with half of this, and does not with none.
const LINUX_WORKING_SET: u64 = 8 * MIB;

/// q35 puts memory from here on above 4 GiB if there is more than [`Q35_ALL_LOW`].
const Q35_LOW_SPLIT: u64 = 2 << 30;
/// Up to here all memory of a q35 machine is below 4 GiB (QEMU, hw/i386/pc_q35.c).
const Q35_ALL_LOW: u64 = 0xB000_0000;

/// Most memory of a machine of Bochs 2.7: it keeps no more in its own. For the rest it has a
/// file, but with that no guest came up within a minute.
const BOCHS_MOST: u64 = 2 << 30;

/// Memory of the host, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostMemory {
    /// All of it.
    pub total: u64,
    /// What can be had without swapping.
    pub available: u64,
}

impl HostMemory {
    /// Reads `/proc/meminfo`.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let memory = Self::parse(&text);
        memory.ok_or_else(|| anyhow::anyhow!("/proc/meminfo has no MemTotal or MemAvailable"))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Self { total: field("MemTotal")?, available: field("MemAvailable")? })
    }
}

/// Checks that the guest can work with `guest_mib` and gives the bytes.
///
/// # Errors
/// When kernel and initial RAM disk do not fit; says how much would do.
pub fn check_guest(guest_mib: u64, kernel: KernelFile, initrd: u64) -> Result<u64> {
    let guest = guest_mib.saturating_mul(MIB);
    ensure!(
        initrd < guest,
        "the initial RAM disk ({} MiB) is larger than the guest's memory ({guest_mib} MiB): give \
         a larger --mem or a smaller --initrd",
        initrd.div_ceil(MIB)
    );
    let needed = match kernel {
        KernelFile::Linux(image) => [image.init_size, 2 * initrd, LINUX_WORKING_SET]
            .into_iter()
            .fold(image.preferred_address, u64::saturating_add),
        KernelFile::Pvh { load_end, linux: true, .. } => {
            [2 * initrd, LINUX_WORKING_SET].into_iter().fold(load_end, u64::saturating_add)
        }
        KernelFile::Pvh { load_end, .. }
        | KernelFile::Multiboot { load_end, .. }
        | KernelFile::Raw { load_end } => load_end.saturating_add(initrd),
        // What VMs have at least: 2 MiB.
        KernelFile::Firmware => 2 * MIB,
    };
    ensure!(
        guest >= needed,
        "--mem {guest_mib} is not enough for this kernel and initial RAM disk: at least {} MiB",
        needed.div_ceil(MIB)
    );
    Ok(guest)
}

/// Memory, in MiB, of the machine that holds the co-kernel and a guest.
///
/// The guest's memory should be one run that is aligned to its largest page, so the machine gets
/// more than the sum; what nobody touches costs the host nothing.
///
/// # Errors
/// When the host has not got enough for what will be touched.
pub fn machine_mib(guest: u64, bundle: u64, host: HostMemory) -> Result<u64> {
    // The bundle is there twice for a moment: as loaded, and copied into the guest.
    let used = guest.saturating_add(COKERNEL).saturating_add(2 * bundle);
    check_host(used, host)?;
    let roomy = machine_with_slack(guest, used);
    // Linux refuses single reservations beyond what could ever be had.
    let bytes = if roomy < host.total - host.total / 8 { roomy } else { used };
    Ok(bytes.div_ceil(MIB).next_multiple_of(2))
}

/// Memory, in MiB, of the Bochs machine that holds the co-kernel and a guest, as
/// [`machine_mib`] has it; as much as there can be for a guest that leaves no more.
///
/// # Errors
/// When that is not enough, or the host has not got it; says how much the guest can have.
pub fn bochs_mib(guest: u64, bundle: u64, host: HostMemory) -> Result<u64> {
    let besides = COKERNEL.saturating_add(2 * bundle);
    ensure!(
        guest <= BOCHS_MOST.saturating_sub(besides),
        "--mem {}: Bochs has at most {} MiB, of which this guest can have {}",
        guest / MIB,
        BOCHS_MOST / MIB,
        BOCHS_MOST.saturating_sub(besides) / MIB
    );
    Ok(machine_mib(guest, bundle, host)?.min(BOCHS_MOST / MIB))
}

fn machine_with_slack(guest: u64, used: u64) -> u64 {
    const GIB: u64 = 1 << 30;
    if guest <= GIB {
        let aligned = guest.next_power_of_two().saturating_mul(2);
        return aligned.max(used).min(Q35_ALL_LOW).max(used);
    }
    // The run comes to lie at 4 GiB; the co-kernel and the bundle stay below.
    let high = guest.next_multiple_of(GIB);
    Q35_LOW_SPLIT.saturating_add(high).max(Q35_ALL_LOW)
}

/// Checks that the host can give `used` bytes.
///
/// # Errors
/// When it cannot; says how much there is.
pub fn check_host(used: u64, host: HostMemory) -> Result<()> {
    ensure!(
        used <= host.available,
        "the machine needs {} MiB, but this host has only {} MiB available: give a smaller --mem",
        used.div_ceil(MIB),
        host.available / MIB
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::kernel_file::BzImage;

    const HOST: HostMemory = HostMemory { total: 24 << 30, available: 20 << 30 };
    const LINUX: KernelFile = KernelFile::Linux(BzImage {
        architecture: Architecture::Amd64,
        preferred_address: 16 * MIB,
        init_size: 52 * MIB,
        command_line_size: 2047,
    });

    #[test]
    fn reads_meminfo() {
        let text = "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        let expected = HostMemory { total: 2 << 20, available: 1 << 20 };
        assert_eq!(HostMemory::parse(text), Some(expected));
        assert_eq!(HostMemory::parse("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn small_guests_are_refused_with_what_would_do() {
        assert_eq!(check_guest(512, LINUX, 2 * MIB).unwrap(), 512 * MIB);
        assert_eq!(check_guest(80, LINUX, 2 * MIB).unwrap(), 80 * MIB);
        let error = check_guest(79, LINUX, 2 * MIB).unwrap_err().to_string();
        assert!(error.contains("at least 80 MiB"), "{error}");
        let error = check_guest(64, LINUX, 65 * MIB).unwrap_err().to_string();
        assert!(error.contains("larger than the guest's memory"), "{error}");
        assert!(check_guest(u64::MAX, LINUX, 0).is_ok());
    }

    #[test]
    fn the_host_must_have_it() {
        let error = machine_mib(21 << 30, 0, HOST).unwrap_err().to_string();
        assert!(error.contains("20480 MiB available"), "{error}");
        assert!(machine_mib(u64::MAX, u64::MAX / 4, HOST).is_err());
    }

    #[test]
    fn bochs_has_two_gib() {
        assert_eq!(bochs_mib(512 * MIB, 20 * MIB, HOST).unwrap(), 1024);
        assert_eq!(bochs_mib(1880 * MIB, 20 * MIB, HOST).unwrap(), 2048);
        let error = bochs_mib(1881 * MIB, 20 * MIB, HOST).unwrap_err().to_string();
        assert_eq!(
            error,
            "--mem 1881: Bochs has at most 2048 MiB, of which this guest can have 1880"
        );
    }

    #[test]
    fn the_guest_gets_an_aligned_run() {
        // 512 MiB at 512 MiB; 1 GiB at 1 GiB.
        assert_eq!(machine_mib(512 * MIB, 20 * MIB, HOST).unwrap(), 1024);
        assert_eq!(machine_mib(1024 * MIB, 20 * MIB, HOST).unwrap(), 2048);
        // Beyond: all of it above 4 GiB.
        assert_eq!(machine_mib(3072 * MIB, 20 * MIB, HOST).unwrap(), 2048 + 3072);
        // No slack where the host is too small for it.
        let tight = HostMemory { total: 5 << 30, available: 4 << 30 };
        assert_eq!(machine_mib(3072 * MIB, 20 * MIB, tight).unwrap(), 3072 + 128 + 40);
    }
}
