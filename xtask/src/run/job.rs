// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the default guest is told to do: files added to its initial RAM disk.

use std::path::Path;

use anyhow::Result;

use crate::console::terminal;
use crate::cpio::Archive;

/// What the guest's user space does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// An interactive shell on a terminal of this size.
    Shell {
        /// Rows and columns, if known.
        size: Option<(u16, u16)>,
        /// Kind of terminal.
        term: String,
    },
    /// A shell that reads commands from a pipe.
    Script,
    /// One command.
    Command(String),
}

impl Job {
    /// The job for this process's standard input.
    pub fn for_standard_input() -> Self {
        let stdin = rustix::stdio::stdin();
        if !terminal::is_terminal(stdin) {
            return Self::Script;
        }
        let term = std::env::var("TERM").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        let term = if !term.is_empty() && term.chars().all(plain) { term } else { "vt100".into() };
        Self::Shell { size: terminal::size(stdin), term }
    }

    /// Writes the archive with the job and its nonce.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write(&self, nonce: &str, path: &Path) -> Result<()> {
        let mut archive = Archive::create(path)?;
        archive.directory("alcazar", 0o755)?;
        archive.file("alcazar/nonce", 0o644, nonce.as_bytes())?;
        archive.file("alcazar/job", 0o644, self.description(nonce).as_bytes())?;
        if let Self::Command(command) = self {
            archive.file("alcazar/command", 0o644, format!("{command}\n").as_bytes())?;
        }
        archive.finish()?;
        Ok(())
    }

    /// Assignments that `guest-images/linux/rc` reads.
    fn description(&self, nonce: &str) -> String {
        match self {
            Self::Command(_) => format!("nonce={nonce}\nmode=exec\n"),
            Self::Script => format!("nonce={nonce}\nmode=script\n"),
            Self::Shell { size, term } => {
                let (rows, columns) = size.unwrap_or((0, 0));
                format!(
                    "nonce={nonce}\nmode=shell\nrows={rows}\ncolumns={columns}\n\
                     export TERM={term}\n"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_described_for_the_guest() {
        assert_eq!(Job::Script.description("0f"), "nonce=0f\nmode=script\n");
        let shell = Job::Shell { size: Some((24, 80)), term: "xterm".into() };
        assert!(shell.description("0f").ends_with("rows=24\ncolumns=80\nexport TERM=xterm\n"));
    }

    #[test]
    fn the_command_travels_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.cpio");
        let command = "echo 'a\"b' | cat; exit 7 # é";
        Job::Command(command.into()).write("0f", &path).unwrap();
        let bytes = std::fs::read(path).unwrap();
        let needle = format!("{command}\n");
        assert!(bytes.windows(needle.len()).any(|window| window == needle.as_bytes()));
    }
}
