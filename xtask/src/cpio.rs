// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives in the "new ASCII" cpio format that Linux takes as initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst) and bundles are made in.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use ::cpio::newc::{self, Builder};
use anyhow::{Context, Result, bail};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Linux looks for a following archive at a multiple of 4 bytes; a whole block is customary.
const BLOCK: u64 = 512;

/// Writes an archive member by member. Contents depend on the input only: no times, no owners.
pub struct Archive<W: Write> {
    to: Counter<W>,
    next_inode: u32,
}

impl Archive<BufWriter<File>> {
    /// Starts an archive in a new file.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(to: W) -> Self {
        Self { to: Counter { to, written: 0 }, next_inode: 1 }
    }

    fn member(&mut self, name: &str, mode: u32) -> Builder {
        let inode = self.next_inode;
        self.next_inode += 1;
        Builder::new(name).mode(mode).ino(inode).nlink(1)
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// When writing fails.
    pub fn directory(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        self.member(name, DIRECTORY | permissions).nlink(2).write(&mut self.to, 0).finish()?;
        Ok(())
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When writing fails, or the content exceeds 4 GiB.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.stream(name, permissions, content.len() as u64, content)
    }

    /// Adds a file of exactly `length` bytes read from `from`.
    ///
    /// # Errors
    /// When reading or writing fails, or the content is shorter or exceeds 4 GiB.
    pub fn stream(
        &mut self,
        name: &str,
        permissions: u32,
        length: u64,
        from: impl Read,
    ) -> io::Result<()> {
        let length = u32::try_from(length).map_err(|_| {
            io::Error::new(io::ErrorKind::FileTooLarge, "cpio members are limited to 4 GiB")
        })?;
        let mut member = self.member(name, REGULAR | permissions).write(&mut self.to, length);
        let copied = io::copy(&mut from.take(u64::from(length)), &mut member)?;
        if copied != u64::from(length) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file became shorter"));
        }
        member.finish()?;
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When writing fails.
    pub fn symlink(&mut self, name: &str, to: &str) -> io::Result<()> {
        let length = u32::try_from(to.len()).map_err(io::Error::other)?;
        let mut member = self.member(name, SYMLINK | 0o777).write(&mut self.to, length);
        member.write_all(to.as_bytes())?;
        member.finish()?;
        Ok(())
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// When writing fails.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        self.member(name, CHARACTER_DEVICE | 0o600)
            .rdev_major(major)
            .rdev_minor(minor)
            .write(&mut self.to, 0)
            .finish()?;
        Ok(())
    }

    /// Ends the archive and pads it so that another may follow.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        newc::trailer(&mut self.to)?;
        pad(&mut self.to.to, self.to.written)?;
        self.to.to.flush()?;
        Ok(self.to.to)
    }
}

/// Writes zeros after `length` bytes up to the next whole block.
///
/// # Errors
/// When writing fails.
pub fn pad(to: &mut impl Write, length: u64) -> io::Result<()> {
    let missing = length.next_multiple_of(BLOCK) - length;
    io::copy(&mut io::repeat(0).take(missing), to)?;
    Ok(())
}

/// Concatenates initial RAM disks, each padded to whole blocks, and gives the length.
///
/// # Errors
/// When a file cannot be read or written; names it.
pub fn concatenate(parts: &[impl AsRef<Path>], to: &Path) -> Result<u64> {
    let mut out = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut total = 0;
    for part in parts {
        let part = part.as_ref();
        let mut from =
            File::open(part).with_context(|| format!("cannot read {}", part.display()))?;
        let length = io::copy(&mut from, &mut out)
            .with_context(|| format!("cannot copy {} to {}", part.display(), to.display()))?;
        pad(&mut out, length)?;
        total += length.next_multiple_of(BLOCK);
    }
    if total == 0 {
        bail!("{}: no initial RAM disk given", to.display());
    }
    Ok(total)
}

struct Counter<W> {
    to: W,
    written: u64,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::cpio::newc::Reader;

    #[test]
    fn members_come_back_as_they_went_in() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("dev", 0o755).unwrap();
        archive.character_device("dev/console", 5, 1).unwrap();
        archive.file("a", 0o644, b"hello").unwrap();
        archive.symlink("b", "a").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);

        let mut seen = Vec::new();
        let mut rest = io::Cursor::new(bytes);
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            seen.push((entry.0, entry.1, content));
            rest = reader.finish().unwrap();
        }
        assert_eq!(
            seen,
            [
                ("dev".into(), 0o040_755, vec![]),
                ("dev/console".into(), 0o020_600, vec![]),
                ("a".into(), 0o100_644, b"hello".to_vec()),
                ("b".into(), 0o120_777, b"a".to_vec()),
            ]
        );
    }

    #[test]
    fn a_source_that_shrank_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.stream("a", 0o644, 10, b"short".as_slice()).is_err());
    }

    #[test]
    fn ram_disks_are_joined_at_block_boundaries() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, joined) =
            (folder.path().join("a"), folder.path().join("b"), folder.path().join("joined"));
        std::fs::write(&a, [1; 3]).unwrap();
        std::fs::write(&b, [2; 512]).unwrap();
        assert_eq!(concatenate(&[a, b], &joined).unwrap(), 1024);
        let bytes = std::fs::read(joined).unwrap();
        assert_eq!((bytes.len(), bytes[2], bytes[3], bytes[512]), (1024, 1, 0, 2));
    }
}
