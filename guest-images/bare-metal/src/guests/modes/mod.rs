// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every operating mode of the CPU: in each one CPUID, MMIO with read-modify-write, port I/O, and
//! where privilege allows RDMSR and HLT until a timer interrupt, many times over.
//!
//! Option: `bitmap` lets virtual-8086 mode do port I/O too, by its I/O permission bitmap. That is
//! not part of the usual run, because QEMU 7.2's SVM checks it wrongly for a guest.

pub(super) mod switch;

use core::ptr;

use self::switch::{Context, PAE, PAGING, PROTECTED, PSE, RESULTS};
use crate::rt::cell::Fixed;
use crate::rt::mode_switch::LOW_CODE;
use crate::rt::report::Report;
use crate::rt::segments::{self, TASK32};
use crate::rt::trap::{DONE, Place};
use crate::rt::{apic, cpu, interrupts, pic, start_info};

const TIMER: u64 = 0x40;
/// Vector by which virtual-8086 mode ends.
const V86_END: usize = 0x80;
/// Times that each mode is entered.
const ROUNDS: u32 = 20;

static IDT32: Fixed<[u64; 256]> = Fixed::new([0; 256]);
static DIRECTORY: Fixed<[u32; 1024]> = Fixed::new([0; 1024]);
static TABLE: Fixed<[u32; 1024]> = Fixed::new([0; 1024]);
static POINTERS: Fixed<[u64; 4]> = Fixed::new([0; 4]);
/// The 32-bit task state: ESP0 and SS0 at offsets 4 and 8, the bitmap's offset at 102.
static TASK_STATE: Fixed<[u8; TASK_SIZE]> = Fixed::new([0; TASK_SIZE]);
static RING0_STACK: Fixed<[u8; 4096]> = Fixed::new([0; 4096]);
const TASK_SIZE: usize = 104 + 8193;

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    apic::enable(false);
    apic::write(apic::DIVIDE, 0xB);
    interrupts::count(TIMER);
    prepare();
    compatibility(&mut report);
    let paged = DIRECTORY.address() as u32;
    let pointers = POINTERS.address() as u32;
    let work32 = switch::mode_work32 as *const () as u32;
    let context = |entry, cr0, cr3, cr4| Context { entry, cr0, cr3, cr4, task: 0 };
    let work16 = switch::mode_work16 as *const () as u32;
    let real = switch::mode_work_real as *const () as u32;
    let enabled = switch::mode_work_enabled as *const () as u32;
    let modes = [
        ("protected mode", context(work32, PROTECTED, 0, 0)),
        // QEMU 7.2 returns from this to a host without paging, unless the VMM knows.
        ("protected mode, long mode enabled", context(enabled, PROTECTED, 0, 0)),
        ("protected mode, 32-bit paging", context(work32, PAGING, paged, PSE)),
        ("protected mode, PAE paging", context(work32, PAGING, pointers, PAE)),
        ("16-bit protected mode", context(work16, PROTECTED, 0, 0)),
        ("16-bit protected mode, paging", context(work16, PAGING, paged, PSE)),
        ("real mode", context(real, PROTECTED, 0, 0)),
    ];
    for (name, mode) in modes {
        privileged(&mut report, name, mode);
    }
    virtual_8086(&mut report, paged);
    let trap = run!(Place::USER, ["nop"]);
    report.equal("long mode works afterwards", trap.cause(), (DONE, 0));
    report.finish()
}

/// Fills in the tables for the other modes.
fn prepare() {
    let low = (&raw const switch::mode_low_start) as u64;
    let timer16 = (&raw const switch::mode_timer16) as u64 - low + LOW_CODE;
    let length = (&raw const switch::mode_low_end) as u64 - low;
    // SAFETY: the tables are this module's own, and memory below 640 KiB is free: the start info,
    // which the loader may have left there, has been copied.
    unsafe {
        ptr::copy_nonoverlapping(low as *const u8, LOW_CODE as *mut u8, length as usize);
        ((TIMER * 4) as *mut u32).write_volatile(timer16 as u32);

        let idt = IDT32.get().cast::<u64>();
        for vector in 0..32 {
            idt.add(vector).write(switch::fault_gate());
        }
        idt.add(TIMER as usize)
            .write(switch::gate32(switch::mode_timer32 as *const () as usize, 0x8E));
        idt.add(V86_END).write(switch::gate32(switch::mode_v86_done as *const () as usize, 0xEE));
        switch::set_idt(IDT32.address());

        let (directory, table) = (DIRECTORY.get().cast::<u32>(), TABLE.get().cast::<u32>());
        for index in 0..1024 {
            directory.add(index).write((index as u32) << 22 | 0x87);
            table.add(index).write((index as u32) << 12 | 0x07);
        }
        directory.write(TABLE.address() as u32 | 0x07);
        table.add(0x9E).write(apic::LAPIC as u32 | 0x07);
        table.add(0x9F).write(apic::IOAPIC as u32 | 0x07);
        POINTERS.get().write(switch::identity_pointers());

        let task = TASK_STATE.get().cast::<u8>();
        task.add(4).cast::<u32>().write_unaligned(RING0_STACK.address() as u32 + 4096);
        task.add(8).cast::<u32>().write_unaligned(segments::KERNEL_DATA.into());
        task.add(102).cast::<u16>().write_unaligned(104);
        task.add(TASK_SIZE - 1).write(0xFF);
    }
}

/// What the work leaves behind, in the order of its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Results {
    ended: bool,
    cpuid: (u32, u32),
    scratch: u32,
    ioapic: u32,
    priority: u32,
    apic_base: u32,
    ticks: u32,
}

fn clear_results() {
    let results = RESULTS as *mut u32;
    // SAFETY: low memory, see `prepare`.
    unsafe {
        for index in 0..16 {
            results.add(index).write_volatile(0);
        }
        results.add(7).write_volatile(50_000);
        results.add(8).write_volatile(u32::from(start_info::has_word("bitmap")));
    }
}

fn results(ended: bool) -> Results {
    // SAFETY: low memory, see `prepare`.
    let word = |index| unsafe { (RESULTS as *const u32).add(index).read_volatile() };
    Results {
        ended,
        cpuid: (word(0), word(1)),
        scratch: word(2),
        ioapic: word(3),
        priority: word(4),
        apic_base: word(5),
        ticks: word(6),
    }
}

/// What the work must leave behind, by the same registers seen from long mode.
fn expected() -> Results {
    let [a, b, ..] = cpu::cpuid(0, 0);
    Results {
        ended: true,
        cpuid: (a, b),
        scratch: 0xA5,
        ioapic: apic::ioapic_read(apic::IOAPIC_VERSION),
        priority: 0x60,
        apic_base: cpu::rdmsr(apic::MSR_APIC_BASE) as u32,
        ticks: 1,
    }
}

fn privileged(report: &mut Report, name: &str, context: Context) {
    let expected = expected();
    let mut got = expected;
    for _ in 0..ROUNDS {
        clear_results();
        apic::write(apic::LVT_TIMER, TIMER as u32);
        // SAFETY: `prepare` has put everything in place, and each context is an identity map.
        got = results(unsafe { switch::mode_call(&raw const context) } == 1);
        if got != expected {
            break;
        }
    }
    report.equal(name, got, expected);
}

/// Compatibility mode keeps long mode's page tables and IDT.
fn compatibility(report: &mut Report) {
    let expected = Results { ticks: 0, ..expected() };
    clear_results();
    interrupts::reset(TIMER);
    apic::write(apic::LVT_TIMER, TIMER as u32);
    let trap = run!(Place::KERNEL32, [".code32", "call eax"],
        in("rax") switch::mode_work32 as *const () as u64,
        out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _);
    report.equal("compatibility mode", results(trap.cause() == (DONE, 0)), expected);
    report.equal("compatibility mode, timer", interrupts::seen(TIMER), 1);
}

fn virtual_8086(report: &mut Report, paged: u32) {
    let task = segments::task32_descriptor(TASK_STATE.address() as u32, TASK_SIZE as u32 - 1);
    let with_port = start_info::has_word("bitmap");
    let scratch = if with_port { 0xA5 } else { 0 };
    let expected = Results { scratch, apic_base: 0, ticks: 0, ..expected() };
    let entry = switch::mode_work_v86 as *const () as u32;
    let context = Context { entry, cr0: PAGING, cr3: paged, cr4: PSE, task: TASK32.into() };
    let mut got = expected;
    for _ in 0..ROUNDS {
        clear_results();
        segments::set_descriptor(TASK32, task);
        // SAFETY: as in `privileged`; the task state of long mode is loaded again behind it.
        got = results(unsafe { switch::mode_call(&raw const context) } == 1);
        segments::load(0);
        if got != expected {
            break;
        }
    }
    report.equal("virtual-8086 mode", got, expected);
}
