// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address space: what is writable is not executable, and stacks end in nothing.

use cokernel::memory::{for_each_page, paging::Leaf, virt_to_phys};

use crate::{Outcome, Test, ensure};

pub(crate) const TESTS: &[Test] = &[
    ("no page is writable and executable", write_xor_execute),
    ("code and constants have no writable alias", no_writable_alias),
    ("the lower half and page 0 are unmapped", lower_half_is_empty),
    ("a guard page is below the stack", stack_has_guard),
];

static CONSTANT: u64 = 1;

fn write_xor_execute() -> Outcome {
    let (mut pages, mut bad, mut executable) = (0, 0, 0u64);
    for_each_page(&mut |page| {
        pages += 1;
        bad += u32::from(page.writable && page.executable || !page.global);
        executable += if page.executable { page.size } else { 0 };
    });
    log::debug!("{pages} pages, {executable} bytes executable");
    ensure(bad == 0, "a page is writable and executable, or not global")?;
    let facts = cokernel::machine_facts();
    ensure(executable > 0 && executable < facts.image_bytes, "too much is executable")
}

fn find(virt: u64) -> Option<Leaf> {
    let mut found = None;
    for_each_page(&mut |page| {
        if page.virt <= virt && virt - page.virt < page.size {
            found = Some(page);
        }
    });
    found
}

fn no_writable_alias() -> Outcome {
    let code = write_xor_execute as *const () as u64;
    let code_page = find(code).ok_or("code is not mapped")?;
    ensure(code_page.executable && !code_page.writable, "code is not read-only")?;
    let constant_page = find(&raw const CONSTANT as u64).ok_or("constants are not mapped")?;
    ensure(!constant_page.executable && !constant_page.writable, "constants are not read-only")?;
    for target in [code_page.phys, constant_page.phys] {
        let mut aliases = 0;
        for_each_page(&mut |page| {
            let covers = page.phys <= target && target.0 - page.phys.0 < page.size;
            aliases += u32::from(covers);
        });
        ensure(aliases == 1, "mapped more than once")?;
    }
    Ok(())
}

fn lower_half_is_empty() -> Outcome {
    let mut low = 0;
    for_each_page(&mut |page| low += u32::from(page.virt < 1 << 63));
    ensure(low == 0, "something is mapped there")
}

fn stack_has_guard() -> Outcome {
    let here = &raw const *&0u8 as u64;
    let local = 0u64;
    let stack = &raw const local as u64 & !4095;
    let depth = (0..64).position(|page| virt_to_phys(stack - page * 4096).is_none());
    ensure(here != 0 && depth.is_some_and(|pages| pages >= 16), "no guard within 256 KiB")
}
