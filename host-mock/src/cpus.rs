// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPUs of the mock host: tasks on them, their timers, and how they wait.

use std::{
    cell::Cell,
    ops::RangeInclusive,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use host_iface::{CpuId, Tsc};

use crate::lock;

thread_local! {
    static CURRENT_CPU: Cell<u32> = const { Cell::new(0) };
}

/// The CPU that the calling thread plays.
pub(crate) fn current() -> u32 {
    CURRENT_CPU.get()
}

/// Has the calling thread play CPU `cpu`.
pub(crate) fn set_current(cpu: u32) {
    CURRENT_CPU.set(cpu);
}

/// What the tasks of some CPUs have come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// All have ended.
    Ended,
    /// Some have not, and all of those wait, without a timer and without a kick on its way:
    /// nothing will wake them but a call from outside.
    Asleep,
    /// Some have not, and still work after the time they were given.
    Busy,
}

#[derive(Clone, Copy, Default)]
struct Cpu {
    /// A task was sent here and has not ended.
    busy: bool,
    /// Waits, and nothing has come that will wake it.
    asleep: bool,
    kicked: bool,
    armed: Option<Tsc>,
}

/// All CPUs.
pub(crate) struct Cpus {
    state: Mutex<Vec<Cpu>>,
    changed: Condvar,
}

impl Cpus {
    pub fn new(count: u32) -> Self {
        let state = Mutex::new(vec![Cpu::default(); count as usize]);
        Self { state, changed: Condvar::new() }
    }

    fn change<T>(&self, cpu: u32, action: impl FnOnce(&mut Cpu) -> T) -> Option<T> {
        let result = lock(&self.state).get_mut(cpu as usize).map(action);
        self.changed.notify_all();
        result
    }

    /// Takes `cpu` for a task; false if it has one.
    pub fn take(&self, cpu: u32) -> bool {
        self.change(cpu, |cpu| !std::mem::replace(&mut cpu.busy, true)).unwrap_or(false)
    }

    /// The task of `cpu` has ended.
    pub fn free(&self, cpu: u32) {
        self.change(cpu, |cpu| cpu.busy = false);
    }

    pub fn kick(&self, cpu: CpuId) {
        self.change(cpu.0, |cpu| (cpu.kicked, cpu.asleep) = (true, false));
    }

    pub fn arm(&self, deadline: Option<Tsc>) {
        self.change(current(), |cpu| cpu.armed = deadline);
    }

    pub fn armed(&self, cpu: u32) -> Option<Tsc> {
        lock(&self.state).get(cpu as usize).and_then(|cpu| cpu.armed)
    }

    /// CPUs with a task.
    pub fn busy(&self) -> usize {
        lock(&self.state).iter().filter(|cpu| cpu.busy).count()
    }

    /// CPUs with a timer that comes after `now`.
    pub fn timers(&self, now: Tsc) -> usize {
        let comes = |cpu: &&Cpu| cpu.armed.is_some_and(|deadline| deadline > now);
        lock(&self.state).iter().filter(comes).count()
    }

    /// Disarms the timers of `cpus`.
    pub fn disarm(&self, cpus: RangeInclusive<u32>) {
        for cpu in cpus {
            self.change(cpu, |cpu| cpu.armed = None);
        }
    }

    /// Waits on the calling CPU while `idle` says so: until a kick comes, or its timer, which is
    /// made to come at once by `advance_to`.
    pub fn sleep_while(&self, idle: &mut dyn FnMut() -> bool, advance_to: impl Fn(Tsc)) {
        let own = current();
        self.change(own, |cpu| cpu.kicked = false);
        while idle() {
            if let Some(deadline) = self.sleep(own) {
                advance_to(deadline);
            }
        }
    }

    /// Sleeps until a kick, or returns the deadline of the timer, which has come.
    fn sleep(&self, own: u32) -> Option<Tsc> {
        let mut cpus = lock(&self.state);
        loop {
            let cpu = cpus.get_mut(own as usize)?;
            if std::mem::take(&mut cpu.kicked) {
                return None;
            }
            if let Some(deadline) = cpu.armed.take() {
                return Some(deadline);
            }
            cpu.asleep = true;
            self.changed.notify_all();
            cpus = self.wait(cpus);
        }
    }

    /// Waits until no task on `cpus` gets any further, but no longer than `limit`.
    pub fn rest(&self, cpus: RangeInclusive<u32>, limit: Duration) -> Rest {
        let until = Instant::now() + limit;
        let mut all = lock(&self.state);
        loop {
            let busy = all.iter().zip(0..).filter(|(cpu, at)| cpu.busy && cpus.contains(at));
            let (busy, awake) = busy
                .fold((0, 0), |(busy, awake), (cpu, _)| (busy + 1, awake + u32::from(!cpu.asleep)));
            match (busy, awake) {
                (0, _) => return Rest::Ended,
                (_, 0) => return Rest::Asleep,
                _ => {}
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return Rest::Busy;
            };
            let woken = self.changed.wait_timeout(all, left);
            all = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, Vec<Cpu>>) -> MutexGuard<'a, Vec<Cpu>> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
}
