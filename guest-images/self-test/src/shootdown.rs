// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storm of TLB shootdowns, interprocessor interrupts and wake-ups between all CPUs.
//!
//! A thread on each CPU replaces a page of its own again and again and publishes what it wrote
//! into the newest one; all others read it. A reader with a stale translation sees an older
//! number than the one published. Between CPUs go `membarrier` calls, which interrupt every CPU
//! that runs this program, and tokens that pairs of threads on two CPUs hand to each other,
//! asleep until the other wakes them.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::affinity;
use crate::interrupts;
use crate::report::Report;

const PAGE: usize = 4096;
/// A wake-up that has not come by then is lost. Far above what a loaded host can delay it by.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// Now and then a CPU sleeps, so that it has to be woken: once in so many rounds, so long.
const ROUNDS_AWAKE: u64 = 64;
const NAP: Duration = Duration::from_micros(500);

/// Commands of membarrier(2).
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// Runs the storm.
pub fn run(report: &mut Report, options: &Options) {
    let seconds = options.get("seconds").unwrap_or(5);
    let Some(cpus) = report.need("online", affinity::online()) else { return };
    if cpus.len() < 2 {
        report.skip("storm", "there is one CPU");
        return;
    }
    let registered = membarrier(REGISTER_PRIVATE_EXPEDITED);
    if report.need("membarrier", registered).is_none() {
        return;
    }
    let slots: io::Result<Vec<Slot>> = cpus.iter().map(|_| Slot::new()).collect();
    let Some(slots) = report.need("mmap", slots) else { return };
    let storm = Storm::new(slots, Duration::from_secs(seconds));
    let Some((before, _)) = report.need("interrupts", interrupts::read()) else { return };
    storm.run(&cpus);
    let Some((after, _)) = report.need("interrupts", interrupts::read()) else { return };
    storm.tell(report);
    for name in ["TLB", "CAL", "RES"] {
        let grown = interrupts::growth(&before, &after, name);
        let good = grown.len() == cpus.len() && grown.iter().sum::<u64>() > 0;
        report.check(format_args!("{name} interrupts"), good, format_args!("{grown:?}"));
    }
}

fn membarrier(command: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes integers and touches no memory.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A page that is replaced, and what was last written into it.
struct Slot {
    page: AtomicPtr<AtomicU64>,
    published: AtomicU64,
}

impl Slot {
    fn new() -> io::Result<Self> {
        let page = map(ptr::null_mut(), 0)?;
        Ok(Self { page: AtomicPtr::new(page), published: AtomicU64::new(0) })
    }

    /// The word at the start of the page.
    fn word(&self) -> &AtomicU64 {
        // SAFETY: a page is there from `new` to `drop`; it is only ever replaced by another one,
        // and all accesses are atomic.
        unsafe { &*self.page.load(Ordering::Relaxed) }
    }

    /// Puts a new page in the place of the old one and writes `number` into it.
    fn replace(&self, number: u64) -> io::Result<()> {
        map(self.page.load(Ordering::Relaxed), libc::MAP_FIXED)?;
        self.word().store(number, Ordering::SeqCst);
        self.published.store(number, Ordering::SeqCst);
        Ok(())
    }

    /// Whether a reader sees an older page than the published one. A new one reads as zero
    /// until it is written.
    fn is_stale(&self) -> bool {
        let published = self.published.load(Ordering::SeqCst);
        let read = self.word().load(Ordering::SeqCst);
        read != 0 && read < published
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the page is this slot's own, and nobody uses it any more.
        unsafe { libc::munmap(self.page.load(Ordering::Relaxed).cast(), PAGE) };
    }
}

fn map(at: *mut AtomicU64, flags: libc::c_int) -> io::Result<*mut AtomicU64> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: new memory, either anywhere or in the place of a slot's page, whose content is
    // atomics: any value is valid for them.
    let page = unsafe { libc::mmap(at.cast(), PAGE, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(page.cast()) }
}

/// A token that two threads hand to each other.
#[derive(Default)]
struct Token {
    handed: Mutex<u64>,
    changed: Condvar,
}

impl Token {
    /// Waits until the count has the parity `turn` and hands the token on. The time that it
    /// took; `None` if nobody woke this thread although it was its turn, or nobody handed it
    /// the token, for [`LOST_AFTER`].
    fn hand_on(&self, turn: u64) -> Option<Duration> {
        let begin = Instant::now();
        let handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.changed.wait_timeout_while(handed, LOST_AFTER, |handed| *handed % 2 != turn);
        let (mut handed, result) = waited.unwrap_or_else(PoisonError::into_inner);
        let lost = result.timed_out() || begin.elapsed() >= LOST_AFTER;
        *handed += 1;
        drop(handed);
        self.changed.notify_one();
        (!lost).then(|| begin.elapsed())
    }
}

/// What all threads share, and their counts.
struct Storm {
    slots: Vec<Slot>,
    time: Duration,
    stop: AtomicBool,
    replaced: AtomicU64,
    barriers: AtomicU64,
    wake_ups: AtomicU64,
    longest_us: AtomicU64,
    lost: AtomicU64,
    stale: AtomicU64,
    errors: AtomicU64,
}

impl Storm {
    fn new(slots: Vec<Slot>, time: Duration) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            slots,
            time,
            stop: AtomicBool::new(false),
            replaced: zero(),
            barriers: zero(),
            wake_ups: zero(),
            longest_us: zero(),
            lost: zero(),
            stale: zero(),
            errors: zero(),
        }
    }

    fn run(&self, cpus: &[usize]) {
        let tokens: Vec<Token> = cpus.iter().map(|_| Token::default()).collect();
        thread::scope(|scope| {
            for (index, &cpu) in cpus.iter().enumerate() {
                let next = cpus.get(index + 1).or(cpus.first()).copied().unwrap_or(cpu);
                scope.spawn(move || self.replace_pages(index, cpu));
                if let Some(token) = tokens.get(index) {
                    scope.spawn(move || self.hand_tokens(token, 0, cpu));
                    scope.spawn(move || self.hand_tokens(token, 1, next));
                }
            }
            thread::sleep(self.time);
            self.stop.store(true, Ordering::SeqCst);
        });
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn bind(&self, cpu: usize) {
        if affinity::bind(cpu).is_err() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn replace_pages(&self, own: usize, cpu: usize) {
        self.bind(cpu);
        let Some(slot) = self.slots.get(own) else { return };
        let mut number = 0;
        while !self.stopped() {
            number += 1;
            let mut failed = slot.replace(number).is_err();
            for slot in &self.slots {
                self.stale.fetch_add(u64::from(slot.is_stale()), Ordering::Relaxed);
            }
            if number % 8 == 0 {
                failed |= membarrier(PRIVATE_EXPEDITED).is_err();
                self.barriers.fetch_add(1, Ordering::Relaxed);
            }
            if number % ROUNDS_AWAKE == 0 {
                thread::sleep(NAP);
            }
            self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        }
        self.replaced.fetch_add(number, Ordering::Relaxed);
    }

    /// One end of a pair. Both go on until the time is over and the other end can have gone.
    fn hand_tokens(&self, token: &Token, turn: u64, cpu: usize) {
        self.bind(cpu);
        while !self.stopped() {
            let Some(took) = token.hand_on(turn) else {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.wake_ups.fetch_add(1, Ordering::Relaxed);
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.longest_us.fetch_max(took, Ordering::Relaxed);
        }
        // The other end may wait for this one's last turn.
        let mut handed = token.handed.lock().unwrap_or_else(PoisonError::into_inner);
        if *handed % 2 == turn {
            *handed += 1;
        }
        token.changed.notify_one();
    }

    fn tell(&self, report: &mut Report) {
        let get = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let (replaced, stale) = (get(&self.replaced), get(&self.stale));
        let detail = format!("{replaced} pages replaced, {stale} stale reads");
        report.check("TLB", replaced > 0 && stale == 0, detail);
        let (wake_ups, lost) = (get(&self.wake_ups), get(&self.lost));
        let longest = get(&self.longest_us) / 1000;
        let detail = format!("{wake_ups} came, {lost} lost, the longest wait was {longest} ms");
        report.check("wake-ups", wake_ups > 0 && lost == 0, detail);
        let (barriers, errors) = (get(&self.barriers), get(&self.errors));
        let good = barriers > 0 && errors == 0;
        report.check("barriers", good, format!("{barriers}, {errors} calls failed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_page_is_not_stale_and_an_old_one_is() {
        let slot = Slot::new().unwrap();
        slot.replace(1).unwrap();
        slot.replace(2).unwrap();
        assert!(!slot.is_stale());
        slot.word().store(1, Ordering::SeqCst);
        assert!(slot.is_stale());
    }

    #[test]
    fn a_short_storm_on_this_machine() {
        let storm =
            Storm::new((0..2).map(|_| Slot::new().unwrap()).collect(), Duration::from_millis(50));
        membarrier(REGISTER_PRIVATE_EXPEDITED).unwrap();
        let cpu = affinity::current().unwrap();
        storm.run(&[cpu, cpu]);
        assert_eq!(storm.stale.into_inner() + storm.lost.into_inner(), 0);
        assert!(storm.replaced.into_inner() > 0 && storm.wake_ups.into_inner() > 0);
    }
}
