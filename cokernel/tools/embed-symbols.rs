// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives a linked co-kernel image its symbol table: `embed-symbols IMAGE [OUTPUT]`.

use std::{env, error::Error, fs, process::ExitCode};

use cokernel::symbols::{HEADER_BYTES, MAGIC, encode};
use object::{
    LittleEndian, Object, ObjectSymbol, SymbolKind,
    elf::{FileHeader64, PT_LOAD, ProgramHeader64},
    pod::{bytes_of, from_bytes},
    read::elf::ElfFile64,
};

const PAGE_SIZE: usize = 4096;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (input, output) = match arguments.as_slice() {
        [image] => (image, image),
        [image, output] => (image, output),
        _ => {
            eprintln!("usage: embed-symbols IMAGE [OUTPUT]");
            return ExitCode::FAILURE;
        }
    };
    match process(input, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embed-symbols: {input}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn process(input: &str, output: &str) -> Result<(), Box<dyn Error>> {
    let image = embed(fs::read(input)?)?;
    // An interrupted write must not leave half an image.
    let partial = format!("{output}.partial");
    fs::write(&partial, image)?;
    fs::set_permissions(&partial, fs::metadata(input)?.permissions())?;
    Ok(fs::rename(partial, output)?)
}

/// Appends the table to the file and lets the segment of the empty one refer to it.
fn embed(mut image: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
    let symbols = functions(&image)?;
    let (base, _) = symbols.first().ok_or("the image has no symbols: was it stripped?")?;
    let table = encode(*base, &symbols);
    let (header_offset, header) = symbol_segment(&image)?;
    let endian = LittleEndian;
    let mut patched = header;
    let first_page = PAGE_SIZE as u64;
    let skew = usize::try_from(header.p_vaddr.get(endian) % first_page)?;
    image.resize(image.len().next_multiple_of(PAGE_SIZE) + skew, 0);
    patched.p_offset.set(endian, image.len() as u64);
    patched.p_filesz.set(endian, table.len() as u64);
    patched.p_memsz.set(endian, table.len() as u64);
    image.extend_from_slice(&table);
    let bytes = bytes_of(&patched);
    image
        .get_mut(header_offset..header_offset + bytes.len())
        .ok_or("the program headers are out of reach")?
        .copy_from_slice(bytes);
    Ok(image)
}

/// All functions with their addresses, in order.
fn functions(image: &[u8]) -> Result<Vec<(u64, String)>, Box<dyn Error>> {
    let elf = ElfFile64::<LittleEndian>::parse(image)?;
    let mut symbols: Vec<(u64, String)> = elf
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && !symbol.is_undefined())
        .filter_map(|symbol| {
            let name = rustc_demangle::demangle(symbol.name().ok()?);
            // The alternate form leaves the hash out.
            Some((symbol.address(), format!("{name:#}")))
        })
        .collect();
    symbols.sort();
    symbols.dedup_by_key(|(address, _)| *address);
    Ok(symbols)
}

/// The program header of the segment that starts with a symbol table, and its file offset.
fn symbol_segment(image: &[u8]) -> Result<(usize, ProgramHeader64<LittleEndian>), Box<dyn Error>> {
    let endian = LittleEndian;
    let (file, _) =
        from_bytes::<FileHeader64<LittleEndian>>(image).map_err(|()| "not an ELF file")?;
    let first = usize::try_from(file.e_phoff.get(endian))?;
    for index in 0..usize::from(file.e_phnum.get(endian)) {
        let offset = first + index * size_of::<ProgramHeader64<LittleEndian>>();
        let bytes = image.get(offset..).ok_or("the program headers are out of reach")?;
        let (header, _) = from_bytes::<ProgramHeader64<LittleEndian>>(bytes)
            .map_err(|()| "the program headers are out of reach")?;
        let start = usize::try_from(header.p_offset.get(endian))?;
        let content = image.get(start..start.saturating_add(HEADER_BYTES));
        let is_table = content.is_some_and(|bytes| bytes.starts_with(&MAGIC.to_le_bytes()));
        if header.p_type.get(endian) == PT_LOAD && is_table {
            return Ok((offset, *header));
        }
    }
    Err("no segment for a symbol table: was it linked with cokernel/link.ld?".into())
}
