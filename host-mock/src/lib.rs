// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host on std with a hand-driven clock, for unit tests, whose calls can be made to fail.
//!
//! Physical memory comes from the process heap, and its physical addresses are its virtual
//! ones displaced by a constant, so that code which assumes an identity map fails.

mod calls;
mod console;
mod cpus;
mod faults;

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    collections::HashMap,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use host_iface::{
    CpuId, Hertz, Host, HostConsole, HostError, HostPhysAddr, HostWallClock, PAGE_SIZE,
    PageRequest, PageRun, RemoteTask, Tsc, WallClockTime,
};

pub use calls::{Failure, HostCall};
pub use console::MockConsole;
pub use cpus::Rest;
pub use faults::{FaultPattern, FaultPlan, Injected};

use cpus::Cpus;
use faults::Faults;

/// Distance from the virtual to the physical address of mock memory.
const DISPLACEMENT: u64 = 0x40_0000_0000;

/// Memory that has to lie below an address gets physical addresses from here on, whatever its
/// virtual ones.
const LOW_BASE: u64 = 0x10_0000;

/// Ticks per second of the mock time-stamp counter: one a nanosecond.
pub const TSC_HZ: u64 = 1_000_000_000;

/// Ticks that pass when a CPU is to wait and does not.
const AWAKE_TICKS: u64 = 1000;

/// The mock host. All of its state can be looked at and set.
pub struct MockHost {
    cpu_count: u32,
    cpus: Arc<Cpus>,
    sleeps: AtomicBool,
    panics: Arc<AtomicUsize>,
    tsc: AtomicU64,
    runs: Mutex<HashMap<u64, Layout>>,
    low: Mutex<LowMemory>,
    faults: Mutex<Faults>,
    kicks: Mutex<Vec<CpuId>>,
    wall_clock: Mutex<Option<WallClockTime>>,
    console: MockConsole,
}

/// What was taken from a host and not given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holdings {
    /// Runs of pages.
    pub runs: usize,
    /// CPUs with a task.
    pub busy_cpus: usize,
    /// Armed timers.
    pub timers: usize,
    /// Whether somebody listens for the console's input.
    pub listeners: usize,
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

    fn release(&mut self, physical: u64) {
        self.runs.retain(|(start, ..)| *start != physical);
        if self.runs.is_empty() {
            self.used = 0;
        }
    }

    fn find(&self, physical: u64) -> Option<usize> {
        self.runs.iter().find_map(|(from, bytes, start)| {
            let offset = physical.checked_sub(*from).filter(|offset| offset < bytes)?;
            Some(start + offset as usize)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MockHost {
    /// A host with `cpus` CPUs that lives as long as the process.
    pub fn leak(cpus: u32) -> &'static Self {
        Box::leak(Box::new(Self {
            cpu_count: cpus,
            cpus: Arc::new(Cpus::new(cpus)),
            sleeps: AtomicBool::new(false),
            panics: Arc::default(),
            tsc: AtomicU64::new(0),
            runs: Mutex::default(),
            low: Mutex::default(),
            faults: Mutex::default(),
            kicks: Mutex::default(),
            wall_clock: Mutex::default(),
            console: MockConsole::default(),
        }))
    }

    /// Moves the clock forward.
    pub fn advance(&self, ticks: u64) {
        self.tsc.fetch_add(ticks, Ordering::SeqCst);
    }

    /// Has CPUs sleep while they are idle, until a kick comes or their timer; the clock jumps to
    /// the latter's deadline. Otherwise they look again and again, and no time passes.
    pub fn sleep_when_idle(&self) {
        self.sleeps.store(true, Ordering::SeqCst);
    }

    /// False if CPUs never sleep, because they are not meant to or because every wait fails.
    pub fn sleeps(&self) -> bool {
        self.sleeps.load(Ordering::SeqCst) && !lock(&self.faults).ends_all_waits()
    }

    /// Waits until no task on `cpus` gets any further by itself, but no longer than `limit`.
    pub fn rest(&self, cpus: RangeInclusive<u32>, limit: Duration) -> Rest {
        self.cpus.rest(cpus, limit)
    }

    /// Has calls fail as `plan` says from now on; returns what failed under the one before.
    pub fn set_faults(&self, plan: Option<FaultPlan>) -> Vec<Injected> {
        lock(&self.faults).replace(plan)
    }

    /// Has no more calls fail under the present plan.
    pub fn mend(&self) {
        lock(&self.faults).mend();
    }

    /// Names what is being done, for the calls that fail from now on under the present plan.
    pub fn begin_phase(&self, name: &'static str) {
        lock(&self.faults).phase = name;
    }

    /// Calls of one kind under the present plan, by its CPUs.
    pub fn calls(&self, call: HostCall) -> u64 {
        lock(&self.faults).count(call)
    }

    fn fails(&self, call: HostCall) -> bool {
        lock(&self.faults).fails(call, cpus::current())
    }

    /// Makes the `n`-th allocation from now fail (0: the next), and then none.
    pub fn fail_allocation_in(&self, n: u64) {
        let pattern = FaultPattern::Nth(HostCall::AllocatePages, n + 1);
        self.set_faults(Some(FaultPlan { cpus: 0..=u32::MAX, pattern }));
    }

    /// Number of runs that are allocated.
    pub fn live_runs(&self) -> usize {
        lock(&self.runs).len()
    }

    /// Everything that is not given back.
    pub fn holdings(&self) -> Holdings {
        Holdings {
            runs: self.live_runs(),
            busy_cpus: self.cpus.busy(),
            timers: self.cpus.timers(Tsc(self.tsc.load(Ordering::SeqCst))),
            listeners: usize::from(self.console.has_listener()),
        }
    }

    /// Tasks that ended in a panic.
    pub fn panics(&self) -> usize {
        self.panics.load(Ordering::SeqCst)
    }

    /// Takes the list of kicked CPUs.
    pub fn take_kicks(&self) -> Vec<CpuId> {
        std::mem::take(&mut lock(&self.kicks))
    }

    /// The deadline of the calling CPU's timer, if it is armed.
    pub fn armed_timer(&self) -> Option<Tsc> {
        self.cpus.armed(cpus::current())
    }

    /// Disarms the timers of `cpus`, as if they had come.
    pub fn disarm(&self, cpus: RangeInclusive<u32>) {
        self.cpus.disarm(cpus);
    }

    /// Sets the civil time; none until then.
    pub fn set_wall_clock(&self, time: WallClockTime) {
        *lock(&self.wall_clock) = Some(time);
    }

    /// The console of every guest.
    pub fn mock_console(&self) -> &MockConsole {
        &self.console
    }

    fn find(&self, address: HostPhysAddr) -> NonNull<u8> {
        let low = lock(&self.low).find(address.as_u64());
        let address = low.unwrap_or_else(|| (address.as_u64() - DISPLACEMENT) as usize);
        NonNull::new(core::ptr::with_exposed_provenance_mut(address))
            .expect("mock memory is never at address zero")
    }

    fn place(&self, start: usize, layout: Layout, below: u64) -> Option<u64> {
        match below {
            u64::MAX => Some(start as u64 + DISPLACEMENT),
            below => lock(&self.low).place(start, layout, below),
        }
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
        if self.fails(HostCall::AllocatePages) {
            return Err(HostError::OutOfMemory(request));
        }
        // SAFETY: the layout has a non-zero size.
        let memory = unsafe { alloc_zeroed(layout) };
        let memory = NonNull::new(memory).ok_or(HostError::OutOfMemory(request))?;
        let virtual_start = memory.as_ptr().expose_provenance();
        let start = self.place(virtual_start, layout, request.below);
        let start = start.expect("a test takes little low memory");
        lock(&self.runs).insert(start, layout);
        Ok(PageRun { start: HostPhysAddr::new(start), pages: request.pages })
    }

    fn release_pages(&self, run: PageRun) {
        self.fails(HostCall::ReleasePages);
        let layout = lock(&self.runs).remove(&run.start.as_u64());
        let layout = layout.expect("a released run was allocated and not yet released");
        assert_eq!(layout.size() as u64, run.bytes(), "a run is released whole");
        let memory = self.find(run.start).as_ptr();
        // SAFETY: `allocate_pages` allocated this memory with this layout, and its entry in
        // `runs` is gone, so it is released once.
        unsafe { dealloc(memory, layout) }
        lock(&self.low).release(run.start.as_u64());
    }

    fn phys_to_virt(&self, address: HostPhysAddr) -> NonNull<u8> {
        self.fails(HostCall::PhysToVirt);
        self.find(address)
    }

    fn cpu_count(&self) -> u32 {
        self.fails(HostCall::CpuCount);
        self.cpu_count
    }

    fn current_cpu(&self) -> CpuId {
        self.fails(HostCall::CurrentCpu);
        CpuId(cpus::current())
    }

    fn run_on(&self, cpu: CpuId, task: RemoteTask) -> Result<(), HostError> {
        if cpu.0 >= self.cpu_count {
            return Err(HostError::NoSuchCpu(cpu));
        }
        let fails = self.fails(HostCall::RunOn);
        if fails || cpu.0 == cpus::current() || !self.cpus.take(cpu.0) {
            return Err(HostError::CpuBusy(cpu));
        }
        let (cpus, panics) = (self.cpus.clone(), self.panics.clone());
        std::thread::spawn(move || {
            cpus::set_current(cpu.0);
            let result = catch_unwind(AssertUnwindSafe(task));
            panics.fetch_add(usize::from(result.is_err()), Ordering::SeqCst);
            cpus.free(cpu.0);
        });
        Ok(())
    }

    fn kick(&self, cpu: CpuId) {
        if !self.fails(HostCall::Kick) {
            lock(&self.kicks).push(cpu);
            self.cpus.kick(cpu);
        }
    }

    fn idle_while(&self, idle: &mut dyn FnMut() -> bool) {
        if self.fails(HostCall::IdleWhile) {
            // Who does not sleep passes the time awake.
            self.advance(AWAKE_TICKS);
            return;
        }
        if self.sleeps.load(Ordering::SeqCst) {
            self.cpus.sleep_while(idle, |deadline| {
                self.tsc.fetch_max(deadline.0, Ordering::SeqCst);
            });
            return;
        }
        while idle() {
            std::thread::yield_now();
        }
    }

    fn tsc_frequency(&self) -> Hertz {
        self.fails(HostCall::TscFrequency);
        Hertz(TSC_HZ)
    }

    fn tsc(&self) -> Tsc {
        self.fails(HostCall::Tsc);
        Tsc(self.tsc.load(Ordering::SeqCst))
    }

    fn arm_timer(&self, deadline: Tsc) {
        if !self.fails(HostCall::ArmTimer) {
            self.cpus.arm(Some(deadline));
        }
    }

    fn cancel_timer(&self) {
        if !self.fails(HostCall::CancelTimer) {
            self.cpus.arm(None);
        }
    }

    fn console(&self, _: usize) -> Option<&dyn HostConsole> {
        (!self.fails(HostCall::Console)).then_some(&self.console as &dyn HostConsole)
    }

    fn wall_clock(&self) -> Option<&dyn HostWallClock> {
        let failed = self.fails(HostCall::WallClock);
        (!failed && lock(&self.wall_clock).is_some()).then_some(self as &dyn HostWallClock)
    }
}
