// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clock that KVM defined for its guests (Linux, Documentation/virt/kvm/x86/msr.rst and
//! arch/x86/include/asm/pvclock-abi.h).
//!
//! The guest names a page per vCPU; it finds there how to make nanoseconds of its TSC. The
//! host's TSC is invariant and synchronous, so what is written at registration holds for the
//! life of the VM and no exit ever updates it. The reference point is the origin of the VM's
//! clock on every vCPU, so that all of them compute the very same time.

use core::sync::atomic::{Ordering, fence};

use host_iface::Host;
use zerocopy::{Immutable, IntoBytes};

use crate::{AccessWidth, GuestPhysAddr, NANOSECONDS, VmClock, memory::LiveMemory};

/// The clock is the same on all vCPUs.
const TSC_STABLE: u8 = 1 << 0;
/// Bit 0 of KVM_SYSTEM_TIME: the clock is in use.
const ENABLED: u64 = 1;
/// Versions around an update: odd while the content changes.
const CHANGING: u32 = 1;

/// `pvclock_vcpu_time_info` after its version.
#[derive(IntoBytes, Immutable, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
struct TimeInfo {
    tsc_timestamp: u64,
    system_time: u64,
    tsc_to_system_mul: u32,
    tsc_shift: i8,
    flags: u8,
    padding: [u8; 2],
}

const _: () = assert!(size_of::<TimeInfo>() == 24);

/// Offset of [`TimeInfo`] from the version.
const TIME_INFO_OFFSET: u64 = 8;

/// `pvclock_wall_clock` after its version.
#[derive(IntoBytes, Immutable, Clone, Copy)]
#[repr(C)]
struct WallClock {
    seconds: u32,
    nanoseconds: u32,
}

const WALL_CLOCK_OFFSET: u64 = 4;

/// The system-time page of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SystemClock {
    register: u64,
}

impl SystemClock {
    /// KVM_SYSTEM_TIME as the guest wrote it.
    pub fn register(&self) -> u64 {
        self.register
    }

    /// Takes a write of KVM_SYSTEM_TIME: the page's address, and bit 0 to enable.
    pub fn set_register(&mut self, value: u64) {
        self.register = value;
    }

    /// Writes the page if the clock is enabled. A page that is not memory is left alone: the
    /// guest gets no time from it, as it would from KVM.
    pub fn publish(&self, memory: LiveMemory<'_>, clock: &VmClock, tsc_offset: u64) {
        if self.register & ENABLED == 0 {
            return;
        }
        let (tsc_to_system_mul, tsc_shift) = multiplier(clock.tsc_hz());
        let info = TimeInfo {
            tsc_timestamp: clock.origin().0.wrapping_add(tsc_offset),
            system_time: 0,
            tsc_to_system_mul,
            tsc_shift,
            flags: TSC_STABLE,
            padding: [0; 2],
        };
        let page = GuestPhysAddr::new(self.register & !ENABLED);
        write_versioned(memory, page, TIME_INFO_OFFSET, &info);
    }
}

/// Answers a write of KVM_WALL_CLOCK: the civil time at the origin of the VM's clock goes to
/// guest-physical `address`. Without a wall clock of the host that is 1970.
pub fn write_wall_clock(memory: LiveMemory<'_>, address: u64, host: &dyn Host, clock: &VmClock) {
    let now = host.wall_clock().map(|c| c.now());
    let now_ns = now.map_or(0, |t| {
        t.unix_seconds.saturating_mul(NANOSECONDS).saturating_add(u64::from(t.nanoseconds))
    });
    let origin_ns = now_ns.saturating_sub(clock.now().0);
    let content = WallClock {
        seconds: (origin_ns / NANOSECONDS) as u32,
        nanoseconds: (origin_ns % NANOSECONDS) as u32,
    };
    write_versioned(memory, GuestPhysAddr::new(address), WALL_CLOCK_OFFSET, &content);
}

/// Writes `content` at `offset` between two changes of the version at `page`.
fn write_versioned<T: IntoBytes + Immutable>(
    memory: LiveMemory<'_>,
    page: GuestPhysAddr,
    offset: u64,
    content: &T,
) {
    let Some(at) = page.checked_add(offset) else { return };
    let Ok(version) = memory.memory().read_u32(page) else { return };
    let changing = version.wrapping_add(1) | CHANGING;
    // A guest that hands in a page at the edge of its memory gets as much of it as there is.
    let set_version = |version: u32| memory.write(page, AccessWidth::Dword, version.into());
    if set_version(changing).is_ok() {
        fence(Ordering::SeqCst);
        let _ = memory.write_plain(at, content);
        fence(Ordering::SeqCst);
        let _ = set_version(changing.wrapping_add(1));
    }
}

/// Multiplier and shift with which nanoseconds = ((ticks << shift) × multiplier) >> 32; a
/// negative shift goes right. The multiplier has its top bit set, for precision.
fn multiplier(tsc_hz: u64) -> (u32, i8) {
    let mut shift = 0;
    let mut hz = tsc_hz.max(1);
    while hz > 2 * NANOSECONDS {
        hz >>= 1;
        shift -= 1;
    }
    while hz <= NANOSECONDS {
        hz <<= 1;
        shift += 1;
    }
    ((u64::from(u32::MAX).min((NANOSECONDS << 32).div_ceil(hz))) as u32, shift)
}
