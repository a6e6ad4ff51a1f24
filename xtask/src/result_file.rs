// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files for results, which the user names.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tempfile::NamedTempFile;

/// A file that can be written: that is known before the work whose result it is to hold begins,
/// which may take long.
#[derive(Debug)]
pub struct ResultFile {
    /// The option that named it.
    option: &'static str,
    path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// A regular file, or none yet: it appears whole or not at all.
    Beside(NamedTempFile),
    /// A device, a pipe or a link, which must stay what it is.
    Itself(File),
}

impl ResultFile {
    /// Checks that the file `path`, which `option` names, can be written.
    ///
    /// # Errors
    /// When it cannot.
    pub fn prepare(option: &'static str, path: &Path) -> Result<Self> {
        let name = path.display();
        if path.is_dir() {
            bail!("{option}: {name} is a folder, give a file");
        }
        let is_special = fs::symlink_metadata(path).is_ok_and(|found| !found.is_file());
        let place = if is_special {
            File::options().write(true).open(path).map(Place::Itself)
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            tempfile::Builder::new().prefix(".alcazar-").tempfile_in(folder).map(Place::Beside)
        };
        let place =
            place.with_context(|| format!("{option}: cannot write {name}, give another file"))?;
        Ok(Self { option, path: path.to_owned(), place })
    }

    /// Puts `value` there as JSON.
    ///
    /// # Errors
    /// When writing fails. There is no file then, or the one that was there before.
    pub fn write_json(self, value: &impl Serialize) -> Result<()> {
        let Self { option, path, place } = self;
        let context = || format!("{option}: cannot write {}", path.display());
        let json = json(value)?;
        match place {
            Place::Itself(mut file) => {
                if file.metadata().is_ok_and(|found| found.is_file()) {
                    file.set_len(0).with_context(context)?;
                }
                file.write_all(&json).with_context(context)
            }
            Place::Beside(mut file) => {
                file.write_all(&json).with_context(context)?;
                // Temporary files are private; a result need not be.
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                rustix::fs::fchmod(file.as_file(), mode).with_context(context)?;
                file.persist(&path).map_err(|error| error.error).with_context(context)?;
                Ok(())
            }
        }
    }
}

/// Text of a file with `value` as JSON.
///
/// # Errors
/// When there is no JSON for it.
pub fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(path: &Path, value: u32) -> Result<()> {
        ResultFile::prepare("--json", path)?.write_json(&value)
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_file_is_whole_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result");
        drop(ResultFile::prepare("--json", &path).unwrap());
        assert_eq!(names(folder.path()), 0);
        for value in [7, 8] {
            write(&path, value).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{value}\n"));
            assert_eq!(names(folder.path()), 1);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        for (path, part) in [(folder.path(), "is a folder"), (Path::new("/no/r"), "cannot write")] {
            let error = ResultFile::prepare("--json", path).unwrap_err().to_string();
            assert!(error.starts_with("--json: ") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_no_plain_file_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "something longer").unwrap();
        symlink(&target, &link).unwrap();
        write(&link, 7).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "7\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let nothing = folder.path().join("nothing");
        symlink("/dev/null", &nothing).unwrap();
        write(&nothing, 7).unwrap();
        assert_eq!(names(folder.path()), 3);
    }
}
