// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel log, on the second serial port: one line for each message.
//!
//! A line is `[   12.345678 cpu0 INFO  target] message`, the time in seconds since the entry.
//! Lines of different CPUs never mix.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use x86::io::{inb, outb};

use crate::{
    boot::BootInfo, cpu::percpu::this_cpu_index, irq_lock::IrqLock, one_line::OneLine,
    serial::Uart, time,
};

/// COM2.
const LOG_PORT: u16 = 0x2F8;
/// Bochs' and QEMU's debug console.
const DEBUG_PORT: u16 = 0xE9;
/// Looks at the lock before a panicking CPU writes without it.
const PANIC_LOCK_ATTEMPTS: u32 = 10_000_000;

/// Whether there is an emulator's debug console: its port reads as its own number, and an absent
/// port as ones. Bochs shows itself in no other way.
pub(crate) fn has_debug_port() -> bool {
    // SAFETY: reading the port changes nothing, whether it is there or not.
    unsafe { inb(DEBUG_PORT) == DEBUG_PORT as u8 }
}

static OUTPUT: IrqLock<Output> = IrqLock::new(Output { uart: None, debug_port: false });
static PANICKING: AtomicBool = AtomicBool::new(false);

struct Output {
    uart: Option<Uart>,
    debug_port: bool,
}

impl Output {
    fn write_bytes(&mut self, bytes: &[u8]) {
        if let Some(uart) = &mut self.uart {
            uart.write(bytes);
        }
        if self.debug_port {
            for &byte in bytes {
                // SAFETY: the port only prints, and was asked for on the command line.
                unsafe { outb(DEBUG_PORT, byte) };
            }
        }
    }
}

/// Collects what formatting produces in small pieces.
struct Buffered<'a> {
    output: &'a mut Output,
    buffer: [u8; 128],
    used: usize,
}

impl<'a> Buffered<'a> {
    fn new(output: &'a mut Output) -> Self {
        Self { output, buffer: [0; 128], used: 0 }
    }

    fn flush(&mut self) {
        self.output.write_bytes(self.buffer.get(..self.used).unwrap_or_default());
        self.used = 0;
    }
}

impl Write for Buffered<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.used == self.buffer.len() {
                self.flush();
            }
            if let Some(slot) = self.buffer.get_mut(self.used) {
                *slot = byte;
                self.used += 1;
            }
        }
        Ok(())
    }
}

impl Drop for Buffered<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

struct KernelLog;

impl Log for KernelLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            write_record(record.level(), record.target(), *record.args());
        }
    }

    fn flush(&self) {}
}

fn write_record(level: Level, target: &str, message: fmt::Arguments<'_>) {
    let microseconds = time::microseconds_since_entry();
    let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
    let cpu = this_cpu_index();
    with_output(|output| {
        let mut out = Buffered::new(output);
        // Writing to a buffer does not fail; a failing Display of the caller's ends its line.
        let _ = write!(out, "[{seconds:>5}.{fraction:06} cpu{cpu} {level:<5} {target}] ");
        let _ = OneLine(&mut out).write_fmt(message);
        let _ = out.write_str("\n");
    });
}

/// Writes `line` and a line feed to the log, whole and without a prefix: for lines that
/// programs read.
pub fn write_line(line: &str) {
    with_output(|output| {
        output.write_bytes(line.as_bytes());
        output.write_bytes(b"\n");
    });
}

/// Waits until everything written has left the serial port.
pub(crate) fn flush() {
    with_output(|output| {
        if let Some(uart) = &mut output.uart {
            uart.flush();
        }
    });
}

/// Writes a formatted line without a prefix.
pub(crate) fn write_raw(line: fmt::Arguments<'_>) {
    with_output(|output| {
        let _ = writeln!(Buffered::new(output), "{line}");
    });
}

fn with_output(write: impl FnOnce(&mut Output)) {
    if !PANICKING.load(Ordering::Relaxed) {
        return write(&mut OUTPUT.lock());
    }
    match OUTPUT.lock_within(PANIC_LOCK_ATTEMPTS) {
        Some(mut output) => write(&mut output),
        // The holder was stopped, or is this very CPU. Its line may be cut.
        None => write(&mut Output { uart: Some(Uart::at(LOG_PORT)), debug_port: true }),
    }
}

/// From now on the log is written even if another CPU holds its lock.
pub(crate) fn enter_panic() {
    PANICKING.store(true, Ordering::Relaxed);
}

/// Opens the log at its default level.
pub(crate) fn init() {
    OUTPUT.lock().uart = Uart::probe(LOG_PORT, true);
    // Fails only when called twice.
    let _ = log::set_logger(&KernelLog);
    log::set_max_level(LevelFilter::Info);
}

/// Applies `loglevel=` and `log=e9` of the command line.
pub(crate) fn configure(boot: &BootInfo) {
    if boot.option("log") == Some("e9") {
        OUTPUT.lock().debug_port = true;
    }
    if let Some(level) = boot.option("loglevel") {
        match level.parse::<LevelFilter>() {
            Ok(level) => log::set_max_level(level),
            Err(_) => log::warn!(
                "loglevel={level}: not a level; use off, error, warn, info, debug or trace"
            ),
        }
    }
}
