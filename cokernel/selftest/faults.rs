// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deliberate exceptions, to see what the log says about them.

use core::arch::asm;

/// Causes the exception that `kind` names; returns only if there is no such kind.
pub(crate) fn cause(kind: &str) {
    match kind {
        // SAFETY (here and below): the machine ends by it, which is what was asked for.
        "page" => unsafe { asm!("mov byte ptr [{}], 1", in(reg) 0x1234_5678u64) },
        // SAFETY: see above.
        "opcode" => unsafe { asm!("ud2") },
        // SAFETY: see above; the address is not canonical.
        "protection" => unsafe { asm!("mov byte ptr [{}], 1", in(reg) 1u64 << 63) },
        "stack" => {
            log::info!("depth {}", descend(1));
        }
        _ => log::error!("fault={kind}: use page, opcode, protection or stack"),
    }
}

/// Recurses until the stack ends.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    let block = core::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { descend(depth + 1) + block[0] }
}
