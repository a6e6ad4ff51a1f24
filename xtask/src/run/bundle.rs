// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bundle: manifest and images in one archive, the co-kernel's only module.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wire::{FORMAT_VERSION, MANIFEST_NAME, Manifest, Stage, VmDescription};

use crate::cpio::Archive;

/// A file and its name in the bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Name that the manifest uses.
    pub name: String,
    /// Where it is now.
    pub path: PathBuf,
}

/// A manifest that runs one VM once.
pub fn single(vm: VmDescription) -> Manifest {
    Manifest { version: FORMAT_VERSION, stages: vec![Stage { vms: vec![vm], repeat: 1 }] }
}

/// Writes a bundle and gives its size.
///
/// # Errors
/// When the manifest is not valid or a file cannot be read or written; names it.
pub fn write(path: &Path, manifest: &Manifest, members: &[Member]) -> Result<u64> {
    manifest.validate().map_err(anyhow::Error::msg)?;
    let mut archive = Archive::create(path)?;
    archive.file(MANIFEST_NAME, 0o644, &serde_json::to_vec(manifest)?)?;
    for member in members {
        add(&mut archive, member)
            .with_context(|| format!("cannot put {} into the bundle", member.path.display()))?;
    }
    archive.finish()?;
    Ok(std::fs::metadata(path)?.len())
}

/// Adds a member in its exact length, which modules keep.
fn add(archive: &mut Archive<impl io::Write>, member: &Member) -> io::Result<()> {
    let file = File::open(&member.path)?;
    let length = file.metadata()?.len();
    archive.stream(&member.name, 0o644, length, file.take(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::cpio::newc::Reader;

    fn vm() -> VmDescription {
        serde_json::from_str(r#"{"name":"g","memory_mib":64,"vcpus":1,"kernel":"kernel"}"#).unwrap()
    }

    #[test]
    fn the_manifest_comes_first_and_members_keep_their_length() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("k");
        std::fs::write(&kernel, b"abc").unwrap();
        let bundle = folder.path().join("b.cpio");
        let member = Member { name: "kernel".into(), path: kernel };
        let size = write(&bundle, &single(vm()), &[member]).unwrap();

        let bytes = std::fs::read(bundle).unwrap();
        assert_eq!(size, bytes.len() as u64);
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        assert_eq!(reader.entry().name(), MANIFEST_NAME);
        let mut json = Vec::new();
        reader.read_to_end(&mut json).unwrap();
        assert_eq!(Manifest::from_json(&json), Ok(single(vm())));
        let mut reader = Reader::new(reader.finish().unwrap()).unwrap();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        assert_eq!((reader.entry().name(), content.as_slice()), ("kernel", b"abc".as_slice()));
    }

    #[test]
    fn an_invalid_manifest_makes_no_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("b.cpio");
        let manifest = single(VmDescription { vcpus: 0, ..vm() });
        assert!(write(&bundle, &manifest, &[]).is_err());
        assert!(!bundle.exists());
    }
}
