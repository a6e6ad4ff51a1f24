// SPDX-License-Identifier: MIT OR Apache-2.0
//! The copy of the tree in which mutations are made.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::catalogue::Mutation;
use crate::process;

/// A copy of the files that git knows or would take. A file whose content is as it was keeps its
/// time of change, so that Cargo builds only what a mutation touches.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    copy: PathBuf,
}

/// A mutation that is in the copy; taken back when dropped.
#[derive(Debug)]
pub struct Applied {
    file: PathBuf,
    content: String,
}

impl Tree {
    /// Makes `copy` like the tree at `root`, whatever is left there of an earlier run.
    ///
    /// # Errors
    /// When git does not list the files, or one cannot be copied.
    pub fn refresh(root: &Path, copy: PathBuf) -> Result<Self> {
        let names = listed(root)?;
        for name in &names {
            bring(&root.join(name), &copy.join(name))?;
        }
        let names: HashSet<PathBuf> = names.iter().map(|name| copy.join(name)).collect();
        remove_others(&copy, &names)?;
        Ok(Self { root: root.to_path_buf(), copy })
    }

    /// Where the copy is.
    pub fn path(&self) -> &Path {
        &self.copy
    }

    /// Makes a mutation.
    ///
    /// # Errors
    /// When it does not fit, or the file cannot be written.
    pub fn mutate(&self, mutation: &Mutation) -> Result<Applied> {
        let changed = mutation.apply(&self.root)?;
        let file = self.copy.join(&mutation.file);
        let content = fs::read_to_string(&file)?;
        fs::write(&file, changed).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Applied { file, content })
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        // Should it fail, the next run brings the file back.
        let _ = fs::write(&self.file, &self.content);
    }
}

/// Files of the working tree, from its root, without what git ignores.
fn listed(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = process::succeed(&mut git, "listing the files")?;
    let list = String::from_utf8_lossy(&list).into_owned();
    let names = list.split('\0').filter(|name| !name.is_empty());
    // Those deleted but not yet committed are listed, too.
    Ok(names.filter(|name| root.join(name).is_file()).map(Into::into).collect())
}

/// Copies a file, unless the copy is the same already.
fn bring(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    let content = fs::read(from).with_context(what)?;
    if fs::read(to).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(what)?;
    }
    fs::copy(from, to).with_context(what)?;
    // The copy would have the time of the original, which may be before that of the last build.
    fs::write(to, content).with_context(what)
}

fn remove_others(folder: &Path, wanted: &HashSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &Path, arguments: &[&str]) {
        let status = Command::new("git").current_dir(folder).args(arguments).output().unwrap();
        assert!(status.status.success());
    }

    #[test]
    fn the_copy_follows_the_tree_and_keeps_what_is_the_same() {
        let (root, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        git(root.path(), &["init", "-q"]);
        fs::create_dir(root.path().join("src")).unwrap();
        for (name, content) in [("src/a.rs", "a"), ("b", "b"), (".gitignore", "out\n"), ("out", "")]
        {
            fs::write(root.path().join(name), content).unwrap();
        }
        let refresh = || Tree::refresh(root.path(), copy.path().join("tree")).unwrap();
        let at = |name: &str| copy.path().join("tree").join(name);
        refresh();
        assert_eq!(fs::read_to_string(at("src/a.rs")).unwrap(), "a");
        assert!(!at("out").exists(), "what git ignores stays away");
        let before = fs::metadata(at("b")).unwrap().modified().unwrap();
        fs::write(at("src/a.rs"), "left by a run that was stopped").unwrap();
        fs::write(at("src/new.rs"), "").unwrap();
        refresh();
        assert_eq!(fs::read_to_string(at("src/a.rs")).unwrap(), "a");
        assert!(!at("src/new.rs").exists());
        assert_eq!(fs::metadata(at("b")).unwrap().modified().unwrap(), before);
    }
}
