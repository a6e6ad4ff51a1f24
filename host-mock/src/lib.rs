// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host on std with a hand-driven clock, for unit tests.
//!
//! Physical memory comes from the process heap, and its physical addresses are its virtual
//! ones displaced by a constant, so that code which assumes an identity map fails.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    cell::Cell,
    collections::HashMap,
    ptr::NonNull,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use host_iface::{
    CpuId, Hertz, Host, HostConsole, HostError, HostPhysAddr, HostWallClock, InputListener,
    PAGE_SIZE, PageRequest, PageRun, RemoteTask, Tsc, WallClockTime,
};

/// Distance from the virtual to the physical address of mock memory.
const DISPLACEMENT: u64 = 0x40_0000_0000;

/// Memory that has to lie below an address gets physical addresses from here on, whatever its
/// virtual ones.
const LOW_BASE: u64 = 0x10_0000;

/// Ticks per second of the mock time-stamp counter: one a nanosecond.
pub const TSC_HZ: u64 = 1_000_000_000;

thread_local! {
    static CURRENT_CPU: Cell<u32> = const { Cell::new(0) };
}

/// The mock host. All of its state can be looked at and set.
pub struct MockHost {
    cpus: u32,
    tsc: AtomicU64,
    runs: Mutex<HashMap<u64, Layout>>,
    low: Mutex<LowMemory>,
    fail_allocation_in: Mutex<Option<u64>>,
    kicks: Mutex<Vec<CpuId>>,
    armed: Mutex<Option<Tsc>>,
    wall_clock: Mutex<Option<WallClockTime>>,
    console: MockConsole,
}

/// Where memory with low addresses really is: physical start, size, virtual start.
#[derive(Default)]
struct LowMemory {
    runs: Vec<(u64, u64, usize)>,
    used: u64,
}

impl LowMemory {
    /// Gives the memory at `start` a physical address that ends at or below `below`.
    fn place(&mut self, start: usize, layout: Layout, below: u64) -> Option<u64> {
        let (bytes, alignment) = (layout.size() as u64, layout.align() as u64);
        let physical = (LOW_BASE + self.used).next_multiple_of(alignment);
        if physical + bytes > below {
            return None;
        }
        self.used = physical + bytes - LOW_BASE;
        self.runs.push((physical, bytes, start));
        Some(physical)
    }

    fn find(&self, physical: u64) -> Option<usize> {
        self.runs.iter().find_map(|(from, bytes, start)| {
            let offset = physical.checked_sub(*from).filter(|offset| offset < bytes)?;
            Some(start + offset as usize)
        })
    }
}

/// The mock console: what was written, and what is there to read.
#[derive(Default)]
pub struct MockConsole {
    output: Mutex<Vec<u8>>,
    input: Mutex<Vec<u8>>,
    listener: Mutex<Option<Arc<dyn InputListener>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MockHost {
    /// A host with `cpus` CPUs that lives as long as the process.
    pub fn leak(cpus: u32) -> &'static Self {
        Box::leak(Box::new(Self {
            cpus,
            tsc: AtomicU64::new(0),
            runs: Mutex::default(),
            low: Mutex::default(),
            fail_allocation_in: Mutex::default(),
            kicks: Mutex::default(),
            armed: Mutex::default(),
            wall_clock: Mutex::default(),
            console: MockConsole::default(),
        }))
    }

    /// Moves the clock forward.
    pub fn advance(&self, ticks: u64) {
        self.tsc.fetch_add(ticks, Ordering::SeqCst);
    }

    /// Makes the `n`-th allocation from now fail (0: the next), and then none.
    pub fn fail_allocation_in(&self, n: u64) {
        *lock(&self.fail_allocation_in) = Some(n);
    }

    /// Number of runs that are allocated.
    pub fn live_runs(&self) -> usize {
        lock(&self.runs).len()
    }

    /// Takes the list of kicked CPUs.
    pub fn take_kicks(&self) -> Vec<CpuId> {
        std::mem::take(&mut lock(&self.kicks))
    }

    /// The deadline of the armed timer.
    pub fn armed_timer(&self) -> Option<Tsc> {
        *lock(&self.armed)
    }

    /// Sets the civil time; none until then.
    pub fn set_wall_clock(&self, time: WallClockTime) {
        *lock(&self.wall_clock) = Some(time);
    }

    /// The console of every guest.
    pub fn mock_console(&self) -> &MockConsole {
        &self.console
    }
}

impl MockConsole {
    /// Takes what was written.
    pub fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.output))
    }

    /// Adds bytes to read, and tells who wants to know.
    pub fn type_in(&self, bytes: &[u8]) {
        lock(&self.input).extend_from_slice(bytes);
        if let Some(listener) = &*lock(&self.listener) {
            listener.input_arrived();
        }
    }
}

impl HostConsole for MockConsole {
    fn write(&self, bytes: &[u8]) {
        lock(&self.output).extend_from_slice(bytes);
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        let mut input = lock(&self.input);
        let count = input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&input[..count]);
        input.drain(..count);
        count
    }

    fn notify(&self, listener: Option<Arc<dyn InputListener>>) {
        *lock(&self.listener) = listener;
    }
}

impl HostWallClock for MockHost {
    fn now(&self) -> WallClockTime {
        lock(&self.wall_clock).unwrap_or(WallClockTime { unix_seconds: 0, nanoseconds: 0 })
    }
}

impl Host for MockHost {
    fn allocate_pages(&self, request: PageRequest) -> Result<PageRun, HostError> {
        let bytes = request.pages.checked_mul(PAGE_SIZE).and_then(|b| usize::try_from(b).ok());
        let alignment = usize::try_from(request.alignment).unwrap_or(0);
        let layout = bytes
            .filter(|&b| b > 0 && alignment >= PAGE_SIZE as usize)
            .and_then(|b| Layout::from_size_align(b, alignment).ok())
            .ok_or(HostError::InvalidRequest(request))?;
        let mut countdown = lock(&self.fail_allocation_in);
        match *countdown {
            Some(0) => {
                *countdown = None;
                return Err(HostError::OutOfMemory(request));
            }
            Some(n) => *countdown = Some(n - 1),
            None => {}
        }
        // SAFETY: the layout has a non-zero size.
        let memory = unsafe { alloc_zeroed(layout) };
        let memory = NonNull::new(memory).ok_or(HostError::OutOfMemory(request))?;
        let virtual_start = memory.as_ptr().expose_provenance();
        let start = match request.below {
            u64::MAX => virtual_start as u64 + DISPLACEMENT,
            below => lock(&self.low)
                .place(virtual_start, layout, below)
                .expect("a test takes little low memory"),
        };
        lock(&self.runs).insert(start, layout);
        Ok(PageRun { start: HostPhysAddr::new(start), pages: request.pages })
    }

    fn release_pages(&self, run: PageRun) {
        let layout = lock(&self.runs).remove(&run.start.as_u64());
        let layout = layout.expect("a released run was allocated and not yet released");
        assert_eq!(layout.size() as u64, run.bytes(), "a run is released whole");
        // SAFETY: `allocate_pages` allocated this memory with this layout, and its entry in
        // `runs` is gone, so it is released once.
        unsafe { dealloc(self.phys_to_virt(run.start).as_ptr(), layout) }
        lock(&self.low).runs.retain(|(start, ..)| *start != run.start.as_u64());
    }

    fn phys_to_virt(&self, address: HostPhysAddr) -> NonNull<u8> {
        let low = lock(&self.low).find(address.as_u64());
        let address = low.unwrap_or_else(|| (address.as_u64() - DISPLACEMENT) as usize);
        NonNull::new(core::ptr::with_exposed_provenance_mut(address))
            .expect("mock memory is never at address zero")
    }

    fn cpu_count(&self) -> u32 {
        self.cpus
    }

    fn current_cpu(&self) -> CpuId {
        CpuId(CURRENT_CPU.get())
    }

    fn run_on(&self, cpu: CpuId, task: RemoteTask) -> Result<(), HostError> {
        if cpu.0 >= self.cpus {
            return Err(HostError::NoSuchCpu(cpu));
        }
        std::thread::spawn(move || {
            CURRENT_CPU.set(cpu.0);
            task();
        });
        Ok(())
    }

    fn kick(&self, cpu: CpuId) {
        lock(&self.kicks).push(cpu);
    }

    fn idle_while(&self, idle: &mut dyn FnMut() -> bool) {
        while idle() {
            std::thread::yield_now();
        }
    }

    fn tsc_frequency(&self) -> Hertz {
        Hertz(TSC_HZ)
    }

    fn tsc(&self) -> Tsc {
        Tsc(self.tsc.load(Ordering::SeqCst))
    }

    fn arm_timer(&self, deadline: Tsc) {
        *lock(&self.armed) = Some(deadline);
    }

    fn cancel_timer(&self) {
        *lock(&self.armed) = None;
    }

    fn console(&self, _: usize) -> Option<&dyn HostConsole> {
        Some(&self.console)
    }

    fn wall_clock(&self) -> Option<&dyn HostWallClock> {
        lock(&self.wall_clock).is_some().then_some(self as &dyn HostWallClock)
    }
}
