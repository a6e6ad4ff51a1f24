// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PVH start information (Xen, `public/arch-x86/hvm/start_info.h`).

use alloc::{string::String, vec::Vec};

use super::{BootError, BootInfo, BootModule, BootProtocol, MemoryKind, MemoryRegion, Rsdp};
use crate::{
    PhysAddr,
    address::{PhysMemory, read_u32, read_u64},
};

const MAGIC: u32 = 0x336E_C578;
const START_INFO_BYTES: usize = 56;
const MODULE_BYTES: usize = 32;
const MEMORY_MAP_ENTRY_BYTES: usize = 24;
/// Longest command line that is looked at.
const MAX_COMMAND_LINE: u64 = 4096;
const MAX_ENTRIES: u32 = 4096;

/// Reads the `hvm_start_info` at `address`.
///
/// # Errors
/// [`BootError::BadMagic`], [`BootError::Truncated`] if it points out of reach, or
/// [`BootError::NoMemoryMap`] if there is none (version 0 has none).
pub fn parse(memory: &dyn PhysMemory, address: u64) -> Result<BootInfo, BootError> {
    let start_info = memory.bytes(address, START_INFO_BYTES).ok_or(BootError::Truncated)?;
    if read_u32(start_info, 0) != Some(MAGIC) {
        return Err(BootError::BadMagic);
    }
    let info = read(memory, start_info).ok_or(BootError::Truncated)?;
    if info.memory_map.is_empty() { Err(BootError::NoMemoryMap) } else { Ok(info) }
}

fn read(memory: &dyn PhysMemory, start_info: &[u8]) -> Option<BootInfo> {
    let version = read_u32(start_info, 4)?;
    let module_count = read_u32(start_info, 12)?;
    let module_list = read_u64(start_info, 16)?;
    let command_line = read_u64(start_info, 24)?;
    let rsdp = read_u64(start_info, 32)?;
    let map_address = read_u64(start_info, 40)?;
    let map_count = if version >= 1 { read_u32(start_info, 48)? } else { 0 };
    Some(BootInfo {
        protocol: BootProtocol::Pvh,
        command_line: text(memory, command_line),
        memory_map: memory_map(memory, map_address, map_count)?,
        modules: modules(memory, module_list, module_count)?,
        rsdp: (rsdp != 0).then_some(Rsdp::Address(PhysAddr(rsdp))),
    })
}

fn modules(memory: &dyn PhysMemory, list: u64, count: u32) -> Option<Vec<BootModule>> {
    let bytes = memory.bytes(list, count.min(MAX_ENTRIES) as usize * MODULE_BYTES);
    if count == 0 {
        return Some(Vec::new());
    }
    bytes?
        .chunks_exact(MODULE_BYTES)
        .map(|entry| {
            let start = read_u64(entry, 0)?;
            let length = read_u64(entry, 8)?;
            start.checked_add(length)?;
            let command_line = text(memory, read_u64(entry, 16)?);
            Some(BootModule { start: PhysAddr(start), length, command_line })
        })
        .collect()
}

fn memory_map(memory: &dyn PhysMemory, address: u64, count: u32) -> Option<Vec<MemoryRegion>> {
    if count == 0 {
        return Some(Vec::new());
    }
    memory
        .bytes(address, count.min(MAX_ENTRIES) as usize * MEMORY_MAP_ENTRY_BYTES)?
        .chunks_exact(MEMORY_MAP_ENTRY_BYTES)
        .map(|entry| {
            let start = read_u64(entry, 0)?;
            Some(MemoryRegion {
                start,
                length: read_u64(entry, 8)?.min(u64::MAX - start),
                kind: MemoryKind::from_e820(read_u32(entry, 16)?),
            })
        })
        .collect()
}

fn text(memory: &dyn PhysMemory, address: u64) -> String {
    if address == 0 {
        return String::new();
    }
    let bytes: Vec<u8> = (0..MAX_COMMAND_LINE)
        .map_while(|i| memory.bytes(address.checked_add(i)?, 1)?.first().copied())
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::address::TestMemory;

    fn start_info(map_count: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC, 1, 0, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for quad in [0x2000u64, 0x3000, 0xF_0000, 0x4000] {
            bytes.extend(quad.to_le_bytes());
        }
        bytes.extend(map_count.to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    fn quads(values: &[u64]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn machine(map_count: u32) -> TestMemory {
        TestMemory(vec![
            (0x1000, start_info(map_count)),
            (0x2000, quads(&[0x700_0000, 0x800, 0x3008, 0])),
            (0x3000, b"a=b c\0\0\0mod\0".to_vec()),
            (0x4000, quads(&[0, 0x9_f000, 1, 0xF_0000, 0x1_0000, 2])),
        ])
    }

    #[test]
    fn everything_is_read() {
        let info = parse(&machine(2), 0x1000).unwrap();
        assert_eq!(info.command_line, "a=b c");
        assert_eq!(info.rsdp, Some(Rsdp::Address(PhysAddr(0xF_0000))));
        assert_eq!(info.modules[0].command_line, "mod");
        assert_eq!((info.modules[0].start.0, info.modules[0].length), (0x700_0000, 0x800));
        assert_eq!(info.memory_map[1].kind, MemoryKind::Reserved);
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(parse(&machine(2), 0x2000), Err(BootError::Truncated));
        assert_eq!(parse(&machine(3), 0x1000), Err(BootError::Truncated));
        assert_eq!(parse(&machine(0), 0x1000), Err(BootError::NoMemoryMap));
        let mut memory = machine(2);
        memory.0[0].1[0] ^= 1;
        assert_eq!(parse(&memory, 0x1000), Err(BootError::BadMagic));
    }
}
