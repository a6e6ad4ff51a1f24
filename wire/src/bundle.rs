// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a bundle.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{MANIFEST_NAME, Manifest, ManifestError, TORTURE_NAME, Torture, TortureError};

/// A bundle: a manifest, and the images that it names, in place.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    members: Vec<(&'a str, &'a [u8])>,
    manifest: Manifest,
    torture: Option<Torture>,
}

/// Why a bundle was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BundleError {
    /// Not a newc cpio archive, or without a manifest: truncated, maybe.
    NoManifest,
    /// The manifest was refused.
    Manifest(ManifestError),
    /// The torture was refused.
    Torture(TortureError),
    /// The manifest names an image that is not there.
    Missing {
        /// The VM that needs it.
        vm: String,
        /// The image.
        image: String,
    },
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoManifest => write!(
                f,
                "the boot module is no bundle: it is not a whole newc cpio archive with a \
                 member {MANIFEST_NAME}; make it with `cargo xtask iso` or `cargo xtask run`"
            ),
            Self::Manifest(error) => write!(f, "{error}"),
            Self::Torture(error) => write!(f, "{error}"),
            Self::Missing { vm, image } => {
                write!(f, "VM '{vm}' needs '{image}', which is not in the bundle")
            }
        }
    }
}

impl core::error::Error for BundleError {}

impl<'a> Bundle<'a> {
    /// Reads the bundle that `archive` holds, and makes sure that all images are there.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn read(archive: &'a [u8]) -> Result<Self, BundleError> {
        let members: Vec<_> =
            cpio_reader::iter_files(archive).map(|entry| (entry.name(), entry.file())).collect();
        let json = find(&members, MANIFEST_NAME).ok_or(BundleError::NoManifest)?;
        let manifest = Manifest::from_json(json).map_err(BundleError::Manifest)?;
        let torture = find(&members, TORTURE_NAME).map(Torture::from_json).transpose();
        let torture = torture.map_err(BundleError::Torture)?;
        let bundle = Self { members, manifest, torture };
        bundle.check_images()?;
        Ok(bundle)
    }

    /// What is to be run.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What is to be run after it, if anything is.
    pub fn torture(&self) -> Option<&Torture> {
        self.torture.as_ref()
    }

    /// The content of the member called `name`.
    pub fn image(&self, name: &str) -> Option<&'a [u8]> {
        find(&self.members, name)
    }

    fn check_images(&self) -> Result<(), BundleError> {
        let tortured = self.torture.iter().flat_map(Torture::vms);
        for vm in self.manifest.stages.iter().flat_map(|stage| &stage.vms).chain(tortured) {
            for image in
                core::iter::once(&vm.kernel).chain(vm.modules.iter().map(|module| &module.image))
            {
                if self.image(image).is_none() {
                    let (vm, image) = (vm.name.clone(), image.clone());
                    return Err(BundleError::Missing { vm, image });
                }
            }
        }
        Ok(())
    }
}

fn find<'a>(members: &[(&str, &'a [u8])], name: &str) -> Option<&'a [u8]> {
    members.iter().find(|(member, _)| *member == name).map(|(_, content)| *content)
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use proptest::prelude::*;

    use super::*;

    /// A member of a newc archive (cpio(5)).
    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mode = if name == "TRAILER!!!" { 0 } else { 0o100_644 };
        let fields = [1, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let mut bytes = b"070701".to_vec();
        for field in fields {
            bytes.extend(format!("{field:08x}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn archive(manifest: &str) -> Vec<u8> {
        let members =
            [("manifest.json", manifest.as_bytes()), ("k", b"kernel"), ("TRAILER!!!", b"")];
        members.iter().flat_map(|(name, content)| member(name, content)).collect()
    }

    fn manifest(kernel: &str) -> String {
        format!(
            r#"{{"version":2,"stages":[{{"vms":[
                {{"name":"a","memory_mib":64,"vcpus":1,"kernel":"{kernel}"}}]}}]}}"#
        )
    }

    #[test]
    fn finds_manifest_and_images() {
        let archive = archive(&manifest("k"));
        let bundle = Bundle::read(&archive).unwrap();
        assert_eq!(bundle.manifest().stages[0].vms[0].name, "a");
        assert_eq!(bundle.image("k"), Some(&b"kernel"[..]));
        assert_eq!(bundle.image("other"), None);
    }

    #[test]
    fn says_what_is_missing() {
        let archive = archive(&manifest("other"));
        let error = Bundle::read(&archive).unwrap_err();
        assert_eq!(error, BundleError::Missing { vm: "a".into(), image: "other".into() });
        assert_eq!(Bundle::read(&[]).unwrap_err(), BundleError::NoManifest);
        assert_eq!(Bundle::read(&vec![0x30; 300]).unwrap_err(), BundleError::NoManifest);
    }

    proptest! {
        #[test]
        fn survives_any_damage(cut in 0_usize..700, at in 0_usize..700, byte: u8) {
            let mut archive = archive(&manifest("k"));
            let length = archive.len();
            archive[at % length] = byte;
            archive.truncate(cut);
            let _ = Bundle::read(&archive);
        }
    }
}
