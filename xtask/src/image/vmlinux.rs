// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ELF file inside a bzImage (Linux, Documentation/arch/x86/boot.rst, "payload_offset").

use anyhow::{Context, Result, bail, ensure};

/// At the start of an LZ4 file of the legacy format, which Linux uses.
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4C, 0x18];
/// Most bytes that one block of it unpacks to.
const LZ4_BLOCK: usize = 8 << 20;

/// Other ways in which kernels are compressed, by how they begin.
const OTHERS: &[(&[u8], &str)] = &[
    (&[0xFD, b'7', b'z', b'X', b'Z'], "XZ"),
    (&[0x1F, 0x8B], "gzip"),
    (&[0x28, 0xB5, 0x2F, 0xFD], "Zstandard"),
    (b"BZh", "bzip2"),
    (&[0x5D, 0, 0], "LZMA"),
    (&[0x89, b'L', b'Z', b'O'], "LZO"),
];

/// Unpacks the kernel of a bzImage.
///
/// # Errors
/// When it is no bzImage, cut short, or not compressed by LZ4.
pub fn unpack(image: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(image).context("it is no bzImage, or cut short")?;
    // The last four bytes are the length of what comes out.
    let (packed, length) = payload.split_last_chunk::<4>().context("its payload is cut short")?;
    let length = u32::from_le_bytes(*length) as usize;
    if let Some(blocks) = packed.strip_prefix(&LZ4_MAGIC) {
        let kernel = unpack_lz4(blocks)?;
        ensure!(kernel.len() == length, "{} bytes came out, not {length}", kernel.len());
        ensure!(kernel.starts_with(b"\x7fELF"), "what came out is no ELF file");
        return Ok(kernel);
    }
    let other = OTHERS.iter().find(|(magic, _)| packed.starts_with(magic));
    bail!(
        "it is compressed by {}; only kernels compressed by LZ4, such as Debian's cloud kernel, \
         are unpacked here",
        other.map_or("unknown means", |other| other.1)
    )
}

/// The compressed kernel and its length.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup_sectors = match image.get(0x1F1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = ((setup_sectors + 1) * 512).checked_add(word(0x248)?)?;
    image.get(start..start.checked_add(word(0x24C)?)?)
}

fn unpack_lz4(mut blocks: &[u8]) -> Result<Vec<u8>> {
    let mut kernel = Vec::new();
    while let Some((bytes, rest)) = blocks.split_first_chunk::<4>() {
        let bytes = u32::from_le_bytes(*bytes) as usize;
        let (block, rest) = rest.split_at_checked(bytes).context("an LZ4 block is cut short")?;
        kernel.extend(lz4_flex::block::decompress(block, LZ4_BLOCK).context("LZ4 block")?);
        blocks = rest;
    }
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x1F1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24C].copy_from_slice(&0x10_u32.to_le_bytes());
        image[0x24C..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.resize(0x410, 0);
        image.extend(payload);
        image
    }

    fn packed(kernel: &[u8], block: usize) -> Vec<u8> {
        let mut bytes = LZ4_MAGIC.to_vec();
        for part in kernel.chunks(block) {
            let part = lz4_flex::block::compress(part);
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
        bytes.extend((kernel.len() as u32).to_le_bytes());
        bytes
    }

    fn kernel() -> Vec<u8> {
        b"\x7fELF".iter().copied().chain((0..20_000_u32).map(|at| (at / 7) as u8)).collect()
    }

    #[test]
    fn what_was_packed_comes_out() {
        for block in [LZ4_BLOCK, 4096] {
            assert_eq!(unpack(&image(&packed(&kernel(), block))).unwrap(), kernel());
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_said() {
        let complaint = |image: &[u8]| format!("{:#}", unpack(image).unwrap_err());
        assert!(complaint(b"").contains("no bzImage"));
        let whole = image(&packed(&kernel(), 4096));
        assert!(complaint(&whole[..whole.len() - 1]).contains("cut short"));
        assert!(complaint(&image(b"\xFD7zXZ\0\0\0\0")).contains("compressed by XZ"));
        let other = complaint(&image(&packed(b"no kernel at all", 4096)));
        assert!(other.contains("no ELF file"), "{other}");
        let mut longer = packed(&kernel(), 4096);
        *longer.last_mut().unwrap() ^= 1;
        assert!(complaint(&image(&longer)).contains("came out, not"));
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut lz4 = LZ4_MAGIC.to_vec();
            lz4.extend(&payload);
            prop_assert!(unpack(&image(&payload)).is_err() && unpack(&image(&lz4)).is_err());
        }
    }
}
