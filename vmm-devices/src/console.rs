// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a serial port is connected to.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::{self, Write as _};

use host_iface::HostConsole;
use spin::Mutex;

/// The far end of a serial line.
pub trait CharBackend: Send + Sync {
    /// Takes bytes that the guest sent.
    fn write(&self, bytes: &[u8]);

    /// Gives up to `buffer.len()` bytes for the guest, without waiting; returns how many.
    /// Bytes not asked for are kept. Fewer than asked for means that nothing is left: what comes
    /// after that is announced by a host event.
    fn read(&self, buffer: &mut [u8]) -> usize;
}

impl CharBackend for &'static dyn HostConsole {
    fn write(&self, bytes: &[u8]) {
        HostConsole::write(*self, bytes);
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        HostConsole::read(*self, buffer).min(buffer.len())
    }
}

/// Length at which a line is broken, in bytes.
const MAX_LINE: usize = 256;

/// A console without input whose output becomes log records of target `console`, one a line,
/// marked with the VM's name.
///
/// Lines longer than 256 bytes are broken. Control characters other than tabs are shown as
/// dots, so that a guest cannot drive the terminal that shows the log. What has not been
/// ended by a newline is logged when the console is dropped.
pub struct LogConsole {
    vm: String,
    line: Mutex<Vec<u8>>,
}

impl LogConsole {
    /// The console of the VM named `vm`.
    pub fn new(vm: &str) -> Self {
        Self { vm: vm.to_string(), line: Mutex::new(Vec::with_capacity(MAX_LINE)) }
    }

    fn log(&self, line: &[u8]) {
        log::info!(target: "console", "{}: {}", self.vm, Printable(line));
    }
}

/// Bytes as text without control characters. It takes nothing of the heap, for a guest writes as
/// many lines as it likes.
struct Printable<'a>(&'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                f.write_char(if c.is_control() && c != '\t' { '.' } else { c })?;
            }
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

impl CharBackend for LogConsole {
    fn write(&self, bytes: &[u8]) {
        let mut line = self.line.lock();
        for &byte in bytes {
            match byte {
                b'\r' => continue,
                b'\n' => {}
                _ => line.push(byte),
            }
            if byte == b'\n' || line.len() >= MAX_LINE {
                self.log(&line);
                line.clear();
            }
        }
    }

    fn read(&self, _: &mut [u8]) -> usize {
        0
    }
}

impl Drop for LogConsole {
    fn drop(&mut self) {
        let line = self.line.lock();
        if !line.is_empty() {
            self.log(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;

    struct Capture(StdMutex<Vec<String>>);

    static CAPTURE: Capture = Capture(StdMutex::new(Vec::new()));

    impl log::Log for Capture {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == "console"
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                self.0.lock().unwrap().push(record.args().to_string());
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn output_becomes_bounded_lines() {
        log::set_logger(&CAPTURE).unwrap();
        log::set_max_level(log::LevelFilter::Info);
        let console = LogConsole::new("vm0");
        console.write(b"hel");
        console.write(b"lo\r\n\x1b[2Jx\n");
        console.write(&[b'a'; MAX_LINE + 3]);
        assert_eq!(console.read(&mut [0; 4]), 0);
        drop(console);
        let long = "a".repeat(MAX_LINE);
        let expected =
            ["vm0: hello", "vm0: .[2Jx", &format!("vm0: {long}"), "vm0: aaa"].map(String::from);
        assert_eq!(*CAPTURE.0.lock().unwrap(), expected);
    }
}
