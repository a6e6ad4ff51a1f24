// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single files out of Debian packages that are fetched but not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::lists::Lists;
use super::store::Store;
use crate::architecture::Architecture;
use crate::{process, setup};

/// What is wanted from a package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Member {
    /// The kernel of a `linux-image` package, as `vmlinuz`.
    Kernel,
    /// The KVM modules of a `linux-image` package, one file each.
    KvmModules,
    /// The program of `busybox-static`, as `busybox`.
    Busybox,
}

impl Member {
    /// Patterns for tar, and names in the cache.
    const fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Kernel => &[("./boot/vmlinuz-*", "vmlinuz")],
            // Some releases compress them.
            Self::KvmModules => &[
                ("*/virt/lib/irqbypass.ko*", "irqbypass.ko"),
                ("*/kvm/kvm.ko*", "kvm.ko"),
                ("*/kvm/kvm-amd.ko*", "kvm-amd.ko"),
            ],
            // Debian 13 has moved it below /usr.
            Self::Busybox => &[("*bin/busybox", "busybox")],
        }
    }

    /// Added to the names of a package and of its entry in the cache.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Kernel | Self::Busybox => "",
            Self::KvmModules => "+kvm",
        }
    }
}

/// A package as the lists describe it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Package {
    name: String,
    version: String,
    /// Names of the packages it depends on.
    depends: Vec<String>,
}

/// The folder with `member` of `package`, from the cache if the lists still name the same version.
/// `package` is a name that may end in an architecture, see [`Architecture::split`].
///
/// # Errors
/// When the package cannot be had and no earlier version is cached.
pub fn fetch(store: &Store, package: &str, member: Member) -> Result<PathBuf> {
    let alias = format!("{package}{}", member.suffix());
    // Asking apt takes about a second; its answer is the same until its lists change.
    if let Some(entry) = store.alias_newer_than(&alias, setup::apt::lists_changed()) {
        return Ok(entry);
    }
    let fetched = current(store, package, member, &alias);
    match (fetched, store.alias(&alias)) {
        (Ok(entry), _) => Ok(entry),
        (Err(error), Some(entry)) => {
            eprintln!("note: using the cached {} ({error:#})", entry.display());
            Ok(entry)
        }
        (Err(error), None) => Err(error),
    }
}

fn current(store: &Store, name: &str, member: Member, alias: &str) -> Result<PathBuf> {
    let (name, architecture) = Architecture::split(name);
    let lists = Lists::of(store, architecture);
    lists.prepare()?;
    let package = resolve(&lists, name)?;
    let entry_name =
        format!("{}_{}{}{}", package.name, package.version, architecture.suffix(), member.suffix())
            .replace(['/', ':'], "_");
    let entry = store.entry(&entry_name, |folder| download(&lists, &package, member, folder))?;
    store.set_alias(alias, &entry_name)?;
    Ok(entry)
}

/// Looks a package up and follows a meta package to the kernel it stands for.
fn resolve(lists: &Lists, name: &str) -> Result<Package> {
    let package = show(lists, name)?;
    let kernel = package.depends.iter().find(|depends| depends.starts_with("linux-image-"));
    match kernel {
        Some(kernel) => show(lists, kernel),
        None => Ok(package),
    }
}

fn show(lists: &Lists, name: &str) -> Result<Package> {
    let text = process::succeed(
        lists.command("apt-cache").args(["show", "--no-all-versions", "--", name]),
        "looking up packages",
    )
    .with_context(|| format!("package {name} is not known; try 'apt-get update'"))?;
    parse(&String::from_utf8_lossy(&text))
        .with_context(|| format!("apt-cache says nothing useful about {name}"))
}

/// Reads the first paragraph of `apt-cache show`.
fn parse(text: &str) -> Option<Package> {
    let field = |name: &str| {
        text.lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let depends = field("Depends").unwrap_or_default();
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        depends: depends
            .split(',')
            .filter_map(|one| one.split_whitespace().next())
            .map(str::to_owned)
            .collect(),
    })
}

fn download(lists: &Lists, package: &Package, member: Member, folder: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(folder)?;
    let what = format!("downloading {} {}", package.name, package.version);
    process::succeed(
        lists
            .command("apt-get")
            .args(["download", "--quiet", &format!("{}={}", package.name, package.version)])
            .current_dir(work.path()),
        &what,
    )?;
    let archive = fs::read_dir(work.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("{what}: apt-get left no package"))?;
    for (pattern, name) in member.files() {
        let found = extract(&archive, pattern, work.path())?;
        fs::rename(&found, folder.join(name))?;
    }
    Ok(())
}

/// Unpacks the one file that matches `pattern`.
fn extract(archive: &Path, pattern: &str, to: &Path) -> Result<PathBuf> {
    let mut unpack = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let tar = unpack.stdout.take().context("dpkg-deb has no output")?;
    let listed = Command::new("tar")
        .args(["--extract", "--verbose", "--wildcards", "--directory"])
        .arg(to)
        .arg(pattern)
        .stdin(tar)
        .output()
        .context("cannot start tar")?;
    let unpacked = unpack.wait()?;
    let names = String::from_utf8_lossy(&listed.stdout);
    match names.lines().collect::<Vec<_>>()[..] {
        [name] if listed.status.success() && unpacked.success() => Ok(to.join(name)),
        _ => bail!("{}: expected one file {pattern} in it", archive.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_package_description() {
        let text = "Package: linux-image-cloud-amd64\nVersion: 6.1.1-2\n\
                    Depends: linux-image-6.1.0-5-cloud-amd64 (= 6.1.1-2), b | c\n\n\
                    Package: linux-image-cloud-amd64\nVersion: 5\n";
        assert_eq!(
            parse(text),
            Some(Package {
                name: "linux-image-cloud-amd64".into(),
                version: "6.1.1-2".into(),
                depends: vec!["linux-image-6.1.0-5-cloud-amd64".into(), "b".into()],
            })
        );
        assert_eq!(parse("Package: x\n"), None);
        assert_eq!(parse(""), None);
    }
}
