// SPDX-License-Identifier: MIT OR Apache-2.0
//! Application processors: started by INIT and SIPI, interrupts each way, shared memory.
//!
//! Skipped with one CPU. Starts no more CPUs than the runtime has stacks for.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::rt::apic::{self, ICR_ALL_BUT_SELF, ICR_ASSERT, ICR_INIT, ICR_NMI, ICR_STARTUP};
use crate::rt::report::Report;
use crate::rt::segments::MAX_CPUS;
use crate::rt::trap::{self, Frame, NMI};
use crate::rt::{acpi, cpu, interrupts, pic, pit, processors, start_info};

/// Vector that a CPU answers with `ANSWER` to the boot CPU.
const CALL: u64 = 0x51;
const ANSWER: u64 = 0x52;
const COUNT: u64 = 0x53;
const ADDITIONS: u64 = 20_000;

static READY: AtomicU32 = AtomicU32::new(0);
static APIC_ID: AtomicU32 = AtomicU32::new(0);
static BOOT_CPU: AtomicU32 = AtomicU32::new(0);
static NMIS: AtomicU32 = AtomicU32::new(0);
static SUM: AtomicU64 = AtomicU64::new(0);
static FINISHED: AtomicU32 = AtomicU32::new(0);
/// Vector whose handler keeps the boot CPU waiting.
const HOLD: u64 = 0x54;
/// For so many times 10 ms.
const HELD: u32 = 6;
static RELEASED: AtomicU32 = AtomicU32::new(0);
/// Vector whose handler loads floating-point state until it is stopped.
const FLOAT: u64 = 0x55;
/// Exits of the boot CPU meanwhile: enough to meet QEMU's fault, and what a slow emulator does
/// in a moment.
const EXITS_ON_TCG: u32 = 20_000;
const EXITS: u32 = 1000;
/// CPUs that are at it.
static FLOATING: AtomicU32 = AtomicU32::new(0);
static STOPPED: AtomicU32 = AtomicU32::new(0);
/// CPUs that found other state than they had loaded.
static SPOILT: AtomicU32 = AtomicU32::new(0);

/// An application processor in 64-bit mode.
fn started() {
    APIC_ID.store(apic::id(), Ordering::SeqCst);
    READY.fetch_add(1, Ordering::SeqCst);
    loop {
        cpu::wait_for_interrupt();
    }
}

fn called(_: &mut Frame) {
    apic::end_of_interrupt();
    apic::send(BOOT_CPU.load(Ordering::SeqCst), ANSWER as u32);
}

/// Adds to a sum that all CPUs share.
fn add(_: &mut Frame) {
    apic::end_of_interrupt();
    for _ in 0..ADDITIONS {
        SUM.fetch_add(1, Ordering::SeqCst);
    }
    FINISHED.fetch_add(1, Ordering::SeqCst);
}

fn hold(_: &mut Frame) {
    apic::end_of_interrupt();
    for _ in 0..HELD {
        pit::wait_10_ms();
    }
    RELEASED.store(1, Ordering::SeqCst);
}

/// An FXSAVE image.
#[repr(C, align(16))]
struct Image([u8; 512]);

impl Image {
    /// Where XMM0 is.
    const XMM0: usize = 160;

    fn current() -> Self {
        let mut image = Self([0; 512]);
        // SAFETY: the image has the size and alignment that FXSAVE asks for.
        unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut image.0, options(nostack)) }
        image
    }

    fn load(&self) {
        // SAFETY: this CPU stored the image, but for data registers, which may hold anything;
        // the guests are built without floating point.
        unsafe { asm!("fxrstor64 [{}]", in(reg) &raw const self.0, options(nostack, readonly)) }
    }
}

/// The x87 environment.
struct Environment([u8; 28]);

impl Environment {
    fn current() -> Self {
        let mut environment = Self([0; 28]);
        // SAFETY: the environment has this size. FNSTENV masks exceptions.
        unsafe { asm!("fnstenv [{}]", in(reg) &raw mut environment.0, options(nostack)) }
        environment
    }

    /// The quickest way to load the x87 status.
    fn load(&self) {
        // SAFETY: this CPU stored the environment.
        unsafe { asm!("fldenv [{}]", in(reg) &raw const self.0, options(nostack, readonly)) }
    }
}

/// Loads floating-point state again and again, which is to stay that of this CPU.
fn float(_: &mut Frame) {
    apic::end_of_interrupt();
    let mut image = Image::current();
    let mark = apic::id() as u8 | 0x80;
    image.0[Image::XMM0..Image::XMM0 + 16].fill(mark);
    let environment = Environment::current();
    FLOATING.fetch_add(1, Ordering::SeqCst);
    let mut spoilt = false;
    while STOPPED.load(Ordering::SeqCst) == 0 {
        image.load();
        for _ in 0..1000 {
            environment.load();
        }
        spoilt |= Image::current().0[Image::XMM0..Image::XMM0 + 16] != [mark; 16];
    }
    SPOILT.fetch_add(u32::from(spoilt), Ordering::SeqCst);
    FLOATING.fetch_sub(1, Ordering::SeqCst);
}

fn nmi(_: &mut Frame) {
    NMIS.fetch_add(1, Ordering::SeqCst);
}

/// Waits up to half a second for a count.
fn reaches(count: &AtomicU32, expected: u32) -> bool {
    for _ in 0..50 {
        if count.load(Ordering::SeqCst) >= expected {
            return true;
        }
        pit::wait_10_ms();
    }
    count.load(Ordering::SeqCst) >= expected
}

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    apic::enable(false);
    let own = apic::id();
    BOOT_CPU.store(own, Ordering::SeqCst);
    let others = || acpi::cpu_apic_ids().filter(move |&id| id != own).take(MAX_CPUS - 1);
    let count = others().count() as u32;
    if count == 0 {
        report.skip("application processors", "there is one CPU");
        return report.finish();
    }
    prepare();
    for (index, id) in others().enumerate() {
        report.equal(format_args!("CPU {id} starts"), start_cpu(index + 1, id), Some(id));
    }
    calls(&mut report, others());
    broadcast(&mut report, count);
    non_maskable(&mut report, others());
    shared(&mut report, count);
    spinning(&mut report, others());
    floating(&mut report, count);
    for (index, id) in others().enumerate() {
        report.equal(format_args!("CPU {id} starts again"), start_cpu(index + 1, id), Some(id));
    }
    calls(&mut report, others());
    for id in others() {
        apic::send(id, ICR_INIT | ICR_ASSERT);
    }
    report.finish()
}

fn prepare() {
    processors::prepare();
    trap::handle(CALL, Some(called));
    trap::handle(COUNT, Some(add));
    trap::handle(HOLD, Some(hold));
    trap::handle(FLOAT, Some(float));
    trap::handle(NMI, Some(nmi));
    interrupts::count(ANSWER);
}

/// INIT, then SIPI; gives the identifier that the CPU reports.
fn start_cpu(index: usize, id: u32) -> Option<u32> {
    READY.store(0, Ordering::SeqCst);
    processors::aim(index, started);
    apic::send(id, ICR_INIT | ICR_ASSERT);
    pit::wait_10_ms();
    let none_before = READY.load(Ordering::SeqCst) == 0;
    apic::send(id, ICR_STARTUP | ICR_ASSERT | processors::START_PAGE);
    let started = reaches(&READY, 1);
    // A second SIPI finds the CPU running and must not matter.
    apic::send(id, ICR_STARTUP | ICR_ASSERT | processors::START_PAGE);
    pit::wait_10_ms();
    let once = READY.load(Ordering::SeqCst) == 1;
    (none_before && started && once).then(|| APIC_ID.load(Ordering::SeqCst))
}

fn calls(report: &mut Report, others: impl Iterator<Item = u32>) {
    for id in others {
        interrupts::reset(ANSWER);
        for _ in 0..10 {
            let before = interrupts::seen(ANSWER);
            apic::send(id, ICR_ASSERT | CALL as u32);
            interrupts::wait(ANSWER, before + 1, 1 << 31);
        }
        report.equal(format_args!("CPU {id} answers"), interrupts::seen(ANSWER), 10);
    }
}

fn broadcast(report: &mut Report, count: u32) {
    interrupts::reset(ANSWER);
    apic::send(0, ICR_ALL_BUT_SELF | ICR_ASSERT | CALL as u32);
    // Answers that wait at the same time may become one.
    interrupts::wait(ANSWER, count, 1 << 28);
    let seen = interrupts::seen(ANSWER);
    report.within("answers to a broadcast", seen.into(), 1, count.into());
}

fn non_maskable(report: &mut Report, others: impl Iterator<Item = u32>) {
    for id in others {
        NMIS.store(0, Ordering::SeqCst);
        apic::send(id, ICR_NMI | ICR_ASSERT);
        reaches(&NMIS, 1);
        pit::wait_10_ms();
        report.equal(format_args!("CPU {id} gets an NMI"), NMIS.load(Ordering::SeqCst), 1);
    }
}

fn shared(report: &mut Report, count: u32) {
    apic::send(0, ICR_ALL_BUT_SELF | ICR_ASSERT | COUNT as u32);
    for _ in 0..ADDITIONS {
        SUM.fetch_add(1, Ordering::SeqCst);
    }
    let finished = reaches(&FINISHED, count);
    let expected = (u64::from(count) + 1) * ADDITIONS;
    report.equal(
        "all CPUs count together",
        (finished, SUM.load(Ordering::SeqCst)),
        (true, expected),
    );
}

/// Waits for another CPU in a loop of PAUSEs, which is long enough to draw the attention of what
/// watches such loops.
fn spinning(report: &mut Report, mut others: impl Iterator<Item = u32>) {
    let Some(id) = others.next() else { return };
    apic::send(id, ICR_ASSERT | HOLD as u32);
    let begin = cpu::tsc();
    while RELEASED.load(Ordering::SeqCst) == 0 && cpu::tsc() - begin < 1 << 34 {
        core::hint::spin_loop();
    }
    report.equal("a wait in a loop of PAUSEs ends", RELEASED.load(Ordering::SeqCst), 1);
}

/// The other CPUs load floating-point state while this one exits. QEMU 7.2 then changes flags of
/// its first CPU from the threads of the others, without a lock.
fn floating(report: &mut Report, count: u32) {
    let before = Image::current();
    apic::send(0, ICR_ALL_BUT_SELF | ICR_ASSERT | FLOAT as u32);
    let all = reaches(&FLOATING, count);
    let exits = if start_info::is_tcg_cpu() { EXITS_ON_TCG } else { EXITS };
    for _ in 0..exits {
        cpu::cpuid(0, 0);
    }
    STOPPED.store(1, Ordering::SeqCst);
    for _ in 0..50 {
        if FLOATING.load(Ordering::SeqCst) > 0 {
            pit::wait_10_ms();
        }
    }
    let ended = FLOATING.load(Ordering::SeqCst) == 0;
    let spoilt = SPOILT.load(Ordering::SeqCst);
    let unchanged = Image::current().0 == before.0;
    report.equal(
        "CPUs have floating-point state of their own",
        (all, ended, spoilt, unchanged),
        (true, true, 0, true),
    );
}
