// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Multiboot2 boot information (Multiboot2 Specification 2.0, section 3.6).

use alloc::{string::String, vec::Vec};

use super::{BootError, BootInfo, BootModule, BootProtocol, MemoryKind, MemoryRegion, Rsdp};
use crate::{
    PhysAddr,
    address::{PhysMemory, read_u32, read_u64},
};

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_ACPI_OLD: u32 = 14;
const TAG_ACPI_NEW: u32 = 15;

/// Reads the information at `address`.
///
/// # Errors
/// [`BootError::Truncated`] if a tag leaves the structure, [`BootError::NoMemoryMap`] if there
/// is none.
pub fn parse(memory: &dyn PhysMemory, address: u64) -> Result<BootInfo, BootError> {
    let size = memory.bytes(address, 8).and_then(|b| read_u32(b, 0)).ok_or(BootError::Truncated)?;
    let information = memory.bytes(address, size as usize).ok_or(BootError::Truncated)?;
    let mut info = BootInfo {
        protocol: BootProtocol::Multiboot2,
        command_line: String::new(),
        memory_map: Vec::new(),
        modules: Vec::new(),
        rsdp: None,
    };
    let mut offset = 8;
    loop {
        let kind = read_u32(information, offset).ok_or(BootError::Truncated)?;
        let tag_size = read_u32(information, offset + 4).ok_or(BootError::Truncated)? as usize;
        let end = offset.checked_add(tag_size).ok_or(BootError::Truncated)?;
        let tag = information.get(offset..end).ok_or(BootError::Truncated)?;
        if kind == TAG_END {
            break;
        }
        let body = tag.get(8..).ok_or(BootError::Truncated)?;
        apply_tag(kind, body, &mut info).ok_or(BootError::Truncated)?;
        offset = end.next_multiple_of(8);
    }
    if info.memory_map.is_empty() { Err(BootError::NoMemoryMap) } else { Ok(info) }
}

fn apply_tag(kind: u32, body: &[u8], info: &mut BootInfo) -> Option<()> {
    match kind {
        TAG_COMMAND_LINE => info.command_line = text(body),
        TAG_MODULE => {
            let start = read_u32(body, 0)?;
            let end = read_u32(body, 4)?;
            info.modules.push(BootModule {
                start: PhysAddr(u64::from(start)),
                length: u64::from(end.checked_sub(start)?),
                command_line: text(body.get(8..)?),
            });
        }
        TAG_MEMORY_MAP => read_memory_map(body, &mut info.memory_map)?,
        // The new root pointer wins over the old one, in whatever order they come.
        TAG_ACPI_OLD if info.rsdp.is_none() => info.rsdp = Some(Rsdp::Copy(body.to_vec())),
        TAG_ACPI_NEW => info.rsdp = Some(Rsdp::Copy(body.to_vec())),
        _ => {}
    }
    Some(())
}

fn read_memory_map(body: &[u8], map: &mut Vec<MemoryRegion>) -> Option<()> {
    let entry_size = read_u32(body, 0)? as usize;
    if entry_size < 24 {
        return None;
    }
    for entry in body.get(8..)?.chunks_exact(entry_size) {
        let start = read_u64(entry, 0)?;
        let length = read_u64(entry, 8)?.min(u64::MAX - start);
        let kind = MemoryKind::from_e820(read_u32(entry, 16)?);
        map.push(MemoryRegion { start, length, kind });
    }
    Some(())
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::address::TestMemory;

    fn tag(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((body.len() as u32 + 8).to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn memory_map_tag() -> Vec<u8> {
        let mut body = vec![24, 0, 0, 0, 0, 0, 0, 0];
        for (start, length, kind) in [(0u64, 0x9_f000u64, 1u32), (0x10_0000, 0x700_0000, 1)] {
            body.extend(start.to_le_bytes());
            body.extend(length.to_le_bytes());
            body.extend(kind.to_le_bytes());
            body.extend([0; 4]);
        }
        tag(TAG_MEMORY_MAP, &body)
    }

    fn information(tags: &[Vec<u8>]) -> TestMemory {
        let mut bytes = vec![0; 8];
        tags.iter().for_each(|t| bytes.extend(t));
        bytes.extend(tag(TAG_END, &[]));
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        TestMemory(vec![(0x9000, bytes)])
    }

    #[test]
    fn all_tags_are_read() {
        let mut module = 0x10_0000u32.to_le_bytes().to_vec();
        module.extend(0x10_0123u32.to_le_bytes());
        module.extend(b"bundle\0");
        let memory = information(&[
            tag(TAG_COMMAND_LINE, b"loglevel=debug\0"),
            tag(TAG_ACPI_NEW, b"new"),
            tag(TAG_ACPI_OLD, b"old"),
            tag(TAG_MODULE, &module),
            memory_map_tag(),
        ]);
        let info = parse(&memory, 0x9000).unwrap();
        assert_eq!(info.command_line, "loglevel=debug");
        assert_eq!(info.rsdp, Some(Rsdp::Copy(b"new".to_vec())));
        assert_eq!(info.modules[0].start, PhysAddr(0x10_0000));
        assert_eq!(info.modules[0].length, 0x123);
        assert_eq!(info.modules[0].command_line, "bundle");
        assert_eq!(info.memory_map.len(), 2);
        assert_eq!(info.memory_map[1].end(), 0x710_0000);
    }

    #[test]
    fn no_memory_map_is_an_error() {
        let memory = information(&[tag(TAG_COMMAND_LINE, b"x\0")]);
        assert_eq!(parse(&memory, 0x9000), Err(BootError::NoMemoryMap));
    }

    #[test]
    fn tag_shorter_than_its_header_is_an_error() {
        let mut short = tag(TAG_COMMAND_LINE, b"");
        short[4] = 4;
        assert_eq!(parse(&information(&[short]), 0x9000), Err(BootError::Truncated));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 8..256)) {
            let size = bytes.len() as u32;
            bytes[..4].copy_from_slice(&size.to_le_bytes());
            let _ = parse(&TestMemory(vec![(0, bytes)]), 0);
        }
    }
}
