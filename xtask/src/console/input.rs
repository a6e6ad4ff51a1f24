// SPDX-License-Identifier: MIT OR Apache-2.0
//! Piped standard input on its way to a guest's terminal.

use std::time::{Duration, Instant};

/// Ends a file on a terminal (^D).
const END_OF_FILE: u8 = 0x04;
/// Flow control of a terminal: stop sending (^S), go on (^Q).
const STOP: u8 = 0x13;
const GO_ON: u8 = 0x11;

/// Linux stops its terminal's sender only when most of a 4096-byte buffer is taken
/// (drivers/tty/n_tty.c); until so much was sent a STOP byte is ordinary output.
const FIRST_STOP: u64 = 3900;

/// After the end of input, `^D` is repeated at this interval: each one may be taken by a program
/// that the shell was running, rather than by the shell.
const REPEAT: Duration = Duration::from_secs(1);

/// A pipe's content, turned into what a terminal would send.
#[derive(Debug, Default)]
pub struct PipedInput {
    sent: u64,
    stopped: bool,
    last: Option<u8>,
    ended: Option<Instant>,
}

impl PipedInput {
    /// Whether the guest asked to wait.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Notes bytes that are sent.
    pub fn sent(&mut self, bytes: &[u8]) {
        self.sent += bytes.len() as u64;
        self.last = bytes.last().copied().or(self.last);
    }

    /// What to send now that the pipe has ended: an end of file, two if it ends within a line,
    /// since the first then only completes that line.
    pub fn end(&mut self, now: Instant) -> Vec<u8> {
        self.ended = Some(now);
        match self.last {
            None | Some(b'\n') => vec![END_OF_FILE],
            Some(_) => vec![END_OF_FILE; 2],
        }
    }

    /// When the next end of file is due.
    pub fn repeat_at(&self) -> Option<Instant> {
        self.ended.map(|ended| ended + REPEAT)
    }

    /// The repeated end of file, if it is due.
    pub fn repeat(&mut self, now: Instant) -> Option<u8> {
        let due = self.repeat_at().is_some_and(|at| now >= at);
        due.then(|| {
            self.ended = Some(now);
            END_OF_FILE
        })
    }

    /// Takes flow control out of the guest's output.
    pub fn watch_output(&mut self, output: &mut Vec<u8>) {
        if self.sent < FIRST_STOP {
            return;
        }
        output.retain(|&byte| match byte {
            STOP => {
                self.stopped = true;
                false
            }
            GO_ON => {
                self.stopped = false;
                false
            }
            _ => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_ends_with_ends_of_file() {
        let start = Instant::now();
        let mut input = PipedInput::default();
        assert_eq!(input.end(start), [END_OF_FILE]);
        input.sent(b"true\n");
        assert_eq!(input.end(start), [END_OF_FILE]);
        input.sent(b"poweroff");
        assert_eq!(input.end(start), [END_OF_FILE; 2]);
        assert_eq!(input.repeat(start), None);
        assert_eq!(input.repeat(start + REPEAT), Some(END_OF_FILE));
        assert_eq!(input.repeat(start + REPEAT), None);
    }

    #[test]
    fn flow_control_counts_only_once_there_was_much_input() {
        let mut input = PipedInput::default();
        let mut output = b"a\x13b".to_vec();
        input.sent(b"short\n");
        input.watch_output(&mut output);
        assert_eq!((output.as_slice(), input.stopped()), (b"a\x13b".as_slice(), false));
        input.sent(&[b'x'; 4000]);
        input.watch_output(&mut output);
        assert_eq!((output.as_slice(), input.stopped()), (b"ab".as_slice(), true));
        let mut output = b"\x11c".to_vec();
        input.watch_output(&mut output);
        assert_eq!((output.as_slice(), input.stopped()), (b"c".as_slice(), false));
    }
}
