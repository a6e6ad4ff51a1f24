// SPDX-License-Identifier: MIT OR Apache-2.0
//! Says on standard error what is being waited for.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Waits shorter than this need no words.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shown from its start to its end or drop: a spinner on a terminal, one plain line elsewhere.
/// Nothing is shown for what takes less than a second.
#[derive(Debug)]
pub struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts waiting for `what`.
    pub fn start(what: &str) -> Self {
        let (stop, stopped) = mpsc::channel();
        let what = what.to_owned();
        let thread = std::thread::spawn(move || {
            if stopped.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            if std::io::stderr().is_terminal() {
                let spinner = spinner(&what);
                let _ = stopped.recv();
                spinner.finish_and_clear();
            } else {
                eprintln!("{what} ...");
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }

    /// Takes the spinner off the terminal.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, and there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spinner(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
    // The clock starts when the wait did, not when it was found to be long.
    let spinner = spinner.with_elapsed(PATIENCE);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
