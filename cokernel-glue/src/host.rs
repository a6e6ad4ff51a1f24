// SPDX-License-Identifier: MIT OR Apache-2.0
//! The co-kernel as a host of the VMM.

use alloc::sync::Arc;
use core::ptr::NonNull;

use cokernel::{
    PhysAddr, console,
    memory::{
        self,
        frames::{FrameError, FrameRequest, FrameRun},
    },
    rtc, smp, time,
};
use host_iface::{
    CpuId, Hertz, Host, HostConsole, HostError, HostPhysAddr, HostWallClock, InputListener,
    PageRequest, PageRun, RemoteTask, Tsc, WallClockTime,
};
use spin::Once;
use vmm_core::{NANOSECONDS, scale};

/// The co-kernel.
pub struct CoKernel;

/// Page frames that are not for guests, but for the heap to grow: 8 MiB. Without them an
/// allocation of the VMM's own would fail, which ends the machine.
pub const HEAP_RESERVE: u64 = 2048;

/// The one host there is.
pub static COKERNEL: CoKernel = CoKernel;

impl Host for CoKernel {
    fn allocate_pages(&self, request: PageRequest) -> Result<PageRun, HostError> {
        if request.pages.saturating_add(HEAP_RESERVE) > memory::usage().free_frames {
            return Err(HostError::OutOfMemory(request));
        }
        let frames = FrameRequest {
            frames: request.pages,
            alignment: request.alignment,
            below: request.below,
            node: request.node.map(|node| node.0),
        };
        match memory::allocate_frames(frames) {
            Ok(run) => Ok(PageRun { start: HostPhysAddr::new(run.start.0), pages: run.frames }),
            Err(FrameError::InvalidRequest) => Err(HostError::InvalidRequest(request)),
            Err(_) => Err(HostError::OutOfMemory(request)),
        }
    }

    fn release_pages(&self, run: PageRun) {
        let frames = FrameRun { start: PhysAddr(run.start.as_u64()), frames: run.pages };
        if let Err(error) = memory::release_frames(frames) {
            log::error!("pages from {} on were not released: {error}", run.start);
        }
    }

    fn phys_to_virt(&self, address: HostPhysAddr) -> NonNull<u8> {
        memory::phys_to_virt(PhysAddr(address.as_u64()))
    }

    fn cpu_count(&self) -> u32 {
        smp::cpu_count()
    }

    fn current_cpu(&self) -> CpuId {
        CpuId(smp::current_cpu())
    }

    fn run_on(&self, cpu: CpuId, task: RemoteTask) -> Result<(), HostError> {
        smp::run_on(cpu.0, task).map_err(|error| match error {
            smp::RunError::NoSuchCpu(_) => HostError::NoSuchCpu(cpu),
            _ => HostError::CpuBusy(cpu),
        })
    }

    fn kick(&self, cpu: CpuId) {
        smp::kick(cpu.0);
    }

    fn idle_while(&self, idle: &mut dyn FnMut() -> bool) {
        smp::idle_while(idle);
    }

    fn tsc_frequency(&self) -> Hertz {
        Hertz(time::tsc_hz())
    }

    fn tsc(&self) -> Tsc {
        Tsc(time::tsc())
    }

    fn arm_timer(&self, deadline: Tsc) {
        time::arm(deadline.0);
    }

    fn cancel_timer(&self) {
        time::cancel();
    }

    /// There is one console stream, the first serial port.
    fn console(&self, index: usize) -> Option<&dyn HostConsole> {
        (index == 0 && console::console().is_some()).then_some(&SerialConsole as &dyn HostConsole)
    }

    fn wall_clock(&self) -> Option<&dyn HostWallClock> {
        Some(self)
    }
}

/// Civil time, in nanoseconds, when the TSC was zero. The clock chip is read once: that takes
/// long, and guests may ask as often as they like.
static EPOCH: Once<u64> = Once::new();

impl HostWallClock for CoKernel {
    fn now(&self) -> WallClockTime {
        let uptime = scale(time::tsc(), NANOSECONDS, time::tsc_hz());
        let epoch = EPOCH.call_once(|| {
            let civil = rtc::unix_seconds().unwrap_or(0).saturating_mul(NANOSECONDS);
            civil.saturating_sub(uptime)
        });
        let now = epoch.saturating_add(uptime);
        WallClockTime { unix_seconds: now / NANOSECONDS, nanoseconds: (now % NANOSECONDS) as u32 }
    }
}

/// The first serial port as a guest's console.
struct SerialConsole;

impl HostConsole for SerialConsole {
    fn write(&self, bytes: &[u8]) {
        if let Some(console) = console::console() {
            console.write(bytes);
        }
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        console::console().map_or(0, |console| console.read(buffer))
    }

    fn notify(&self, listener: Option<Arc<dyn InputListener>>) {
        if let Some(console) = console::console() {
            let listener =
                listener.map(|one| -> console::Listener { Arc::new(move || one.input_arrived()) });
            console.notify(listener);
        }
    }
}
