// SPDX-License-Identifier: MIT OR Apache-2.0
//! The package lists that apt reads.
//!
//! For 64-bit packages they are the machine's. 32-bit packages have lists of our own, in the cache
//! of guest images: so nothing has to be changed in the machine's configuration, and no other
//! rights are needed than to write there. Whence they come is what the machine's sources say.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::store::Store;
use crate::architecture::Architecture;
use crate::{process, setup};

/// Lists for one architecture.
#[derive(Debug)]
pub struct Lists {
    /// Where they are, if they are not the machine's.
    own: Option<PathBuf>,
}

impl Lists {
    /// Those for `architecture`.
    pub fn of(store: &Store, architecture: Architecture) -> Self {
        let own = match architecture {
            Architecture::Amd64 => None,
            Architecture::I386 => Some(store.hidden("apt-i386")),
        };
        Self { own }
    }

    /// A program of apt that reads these lists.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(folder) = &self.own {
            let folder = folder.display();
            for option in [
                "APT::Architecture=i386".to_owned(),
                "APT::Architectures::=i386".to_owned(),
                format!("Dir::State::lists={folder}/lists"),
                format!("Dir::Cache={folder}/cache"),
                // What is installed on the machine does not matter.
                "Dir::State::status=/dev/null".to_owned(),
                "Acquire::Languages=none".to_owned(),
            ] {
                command.args(["-o", &option]);
            }
        }
        command
    }

    /// Fetches lists if there are none; those of our own also if the machine's are newer.
    ///
    /// # Errors
    /// When that fails and there are none from before.
    pub fn prepare(&self) -> Result<()> {
        let Some(folder) = &self.own else {
            // Fresh machines and containers come without.
            return if setup::apt::has_lists() { Ok(()) } else { setup::apt::update() };
        };
        let stamp = folder.join("updated");
        let updated = fs::metadata(&stamp).and_then(|metadata| metadata.modified()).ok();
        if updated.is_some() && updated > setup::apt::lists_changed() {
            return Ok(());
        }
        let lists = folder.join("lists");
        for needed in [lists.join("partial"), folder.join("cache/archives/partial")] {
            fs::create_dir_all(&needed)
                .with_context(|| format!("cannot make {}", needed.display()))?;
        }
        let what = "fetching the lists of i386 packages";
        eprintln!("setup: {what} into {}", folder.display());
        let fetched = process::succeed(self.command("apt-get").args(["update", "--quiet"]), what);
        match (fetched, setup::apt::has_lists_in(&lists)) {
            (Ok(_), true) => {
                File::create(&stamp)
                    .with_context(|| format!("cannot write {}", stamp.display()))?;
                Ok(())
            }
            (Ok(_), false) => bail!("the machine's package sources have no i386 packages"),
            // One archive of several may be out of step for a while: the others do, and the next
            // command tries again.
            (Err(error), true) => {
                eprintln!("note: {error:#}");
                Ok(())
            }
            (Err(error), false) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;

    #[test]
    fn only_foreign_packages_have_lists_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { root: folder.path().into(), target: folder.path().into() };
        let store = Store::open(&paths).unwrap();
        let arguments = |architecture| {
            let command = Lists::of(&store, architecture).command("apt-get");
            process::command_line(&command)
        };
        assert_eq!(arguments(Architecture::Amd64), "apt-get");
        let line = arguments(Architecture::I386);
        assert!(line.contains("APT::Architecture=i386"), "{line}");
        assert!(line.contains(&format!("Dir::State::lists={}", folder.path().display())), "{line}");
        assert!(line.contains("apt-i386/lists"), "{line}");
    }
}
