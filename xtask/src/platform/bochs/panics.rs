// SPDX-License-Identifier: MIT OR Apache-2.0
//! Panics of CPUs after which Bochs goes on.
//!
//! At a triple fault of a guest under SVM, Bochs 2.7 panics before it looks whether the VMM
//! intercepts that (AMD APM vol. 2, 15.14.3), and looks only if it may go on. At #VMEXIT from
//! virtual-8086 mode it loads the host's EFER before it clears RFLAGS.VM, and panics because the
//! two exclude each other; then it clears the flag, and all is well. So on AMD models panics of
//! CPUs are just written down, and end the machine from here if they are of another kind.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How often Bochs' messages are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Where the image of the co-kernel lies (`cokernel/link.ld`). Kernels of Linux lie above.
const IMAGE: std::ops::Range<u64> = 0xFFFF_FFFF_8000_0000..0xFFFF_FFFF_8100_0000;

/// Reads Bochs' messages, line by line.
#[derive(Debug, Default)]
pub struct Reader {
    /// Where each CPU was when it last told its registers, which it does before it panics.
    places: HashMap<String, u64>,
}

impl Reader {
    /// The panic in `text`, which follows what was read before, that the machine must not outlive.
    pub fn fatal(&mut self, text: &str) -> Option<String> {
        text.lines().find_map(|line| self.fatal_line(line))
    }

    fn fatal_line(&mut self, line: &str) -> Option<String> {
        let (before, after) = line.split_once(']')?;
        let (_, module) = before.split_once('[')?;
        if let Some((_, place)) = after.split_once("| RIP=") {
            let digits = place.get(..16).unwrap_or_default();
            let place = u64::from_str_radix(digits, 16).unwrap_or(IMAGE.start);
            self.places.insert(module.trim().to_owned(), place);
        }
        let (_, why) = after.split_once(">>PANIC<<")?;
        let place = self.places.get(module.trim()).copied().unwrap_or(IMAGE.start);
        let is_of_guest = is_triple_fault(why) && !IMAGE.contains(&place);
        (!is_of_guest && !is_exit_from_v8086(why)).then(|| why.trim().to_owned())
    }
}

/// Whether this is how Bochs reports a triple fault.
pub fn is_triple_fault(message: &str) -> bool {
    message.contains("exception with no resolution")
}

/// Whether this is what Bochs says at #VMEXIT from virtual-8086 mode. In the host nothing leads to
/// it: long mode does not let RFLAGS.VM be set.
fn is_exit_from_v8086(message: &str) -> bool {
    message.contains("VM is set in long mode")
}

/// Ends Bochs at the first panic that the machine must not outlive, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the process `bochs` by its `messages`.
    pub fn begin(messages: File, bochs: Pid) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let (mut reader, mut length, mut rest) = (Reader::default(), 0, Vec::new());
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let mut bytes = vec![0; 1 << 16];
                let count = messages.read_at(&mut bytes, length).unwrap_or(0);
                length += count as u64;
                rest.extend(bytes.iter().take(count));
                let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
                let lines: Vec<u8> = rest.drain(..whole).collect();
                if reader.fatal(&String::from_utf8_lossy(&lines)).is_some() {
                    // It may have ended by itself.
                    let _ = kill_process(bochs, Signal::KILL);
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, and there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    const TRIPLE: &str =
        "009p[CPU2  ] >>PANIC<< exception(): 3rd (14) exception with no resolution\n";

    fn at(cpu: u32, place: &str) -> String {
        format!("008i[CPU{cpu}  ] | RIP={place} ({place})\n")
    }

    #[test]
    fn only_triple_faults_of_guests_are_outlived() {
        let (guest, linux) = (at(2, "0000000000105660"), at(2, "ffffffff81000100"));
        let (host, other) = (at(2, "ffffffff8000a096"), at(1, "ffffffff8000a096"));
        let fatal = |text: String| Reader::default().fatal(&text);
        for fine in [guest.clone() + TRIPLE, linux + TRIPLE, guest.clone() + &other + TRIPLE] {
            assert_eq!(fatal(fine.clone()), None, "{fine}");
        }
        for bad in
            [TRIPLE.to_owned(), host.clone() + TRIPLE, guest.clone() + TRIPLE + &host + TRIPLE]
        {
            assert!(fatal(bad.clone()).is_some_and(|why| is_triple_fault(&why)), "{bad}");
        }
        let panic = "009p[CPU2  ] >>PANIC<< no such mode\n";
        assert_eq!(fatal(guest.clone() + panic).as_deref(), Some("no such mode"));
    }

    #[test]
    fn exits_from_virtual_8086_mode_are_outlived() {
        // Bochs does not tell where it is.
        let exit = "009p[CPU2  ] >>PANIC<< VM is set in long mode !\n";
        let (guest, host) = (at(2, "0000000000105660"), at(2, "ffffffff8000a096"));
        let fatal = |text: String| Reader::default().fatal(&text);
        assert_eq!(fatal(exit.to_owned()), None);
        assert_eq!(fatal(host + exit), None);
        assert!(fatal(exit.to_owned() + TRIPLE).is_some());
        assert_eq!(fatal(exit.to_owned() + &guest + TRIPLE), None);
    }

    #[test]
    fn what_was_read_before_counts() {
        let mut reader = Reader::default();
        assert_eq!(reader.fatal(&at(2, "0000000000105660")), None);
        assert_eq!(reader.fatal(TRIPLE), None);
    }

    #[test]
    fn the_machine_ends_at_a_panic_of_another_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages");
        let mut messages = File::create(&path).unwrap();
        let mut bochs = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let id = Pid::from_child(&bochs);
        let watch = Watch::begin(File::open(&path).unwrap(), id);
        messages.write_all(b"009p[CPU0  ] >>PANIC<< no such thing\n").unwrap();
        let begin = Instant::now();
        assert!(!bochs.wait().unwrap().success());
        assert!(begin.elapsed() < Duration::from_secs(100));
        drop(watch);
    }
}
