// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it means that the page walker and the reference agree: on translation or error code, and
//! on what becomes of the tables.

use super::reference::{self, Outcome, Page};
use super::shape::Shape;
use crate::GuestVirtAddr;
use crate::paging::walk::rules::Rules;
use crate::paging::walk::{
    PhysicalMemory, TranslateError, Translation, probe, translate, translate_by,
};
use crate::state::efer;

/// A walker that follows the rules `R` agrees with the reference on one shape.
///
/// # Errors
/// Where it does not.
pub(in crate::paging) fn agrees<R: Rules>(shape: Shape) -> Result<(), String> {
    let Shape { memory, mut space, accesses } = shape;
    let expected = memory.clone();
    for (address, access, alignment_check) in accesses {
        space.alignment_check = alignment_check;
        let wanted = reference::walk(&expected, &space, address, access);
        let found = translate_by::<R, _>(&memory, &space, GuestVirtAddr::new(address), access);
        let same = match (&wanted, &found) {
            (Outcome::Page(wanted), Ok(found)) => is_page(found, wanted),
            (Outcome::Fault(wanted), Err(TranslateError::PageFault(found))) => wanted == found,
            (Outcome::NonCanonical, Err(TranslateError::NonCanonical)) => true,
            _ => false,
        };
        if !same {
            return Err(format!("{access:?} of {address:#x} is {found:x?}, not {wanted:x?}"));
        }
        if let Outcome::Page(Page { marks, .. }) = wanted {
            for (at, bytes, bits) in marks {
                expected.mark(at, bytes, bits);
            }
        }
        if memory.cells != expected.cells {
            return Err(format!("{access:?} of {address:#x} leaves other tables behind"));
        }
    }
    Ok(())
}

fn is_page(found: &Translation, wanted: &Page) -> bool {
    let rights = (found.rights.write, found.rights.user, found.rights.execute);
    found.address.as_u64() == wanted.address
        && found.page_size.bytes() == wanted.size
        && rights == wanted.rights
        && (found.dirty, found.global) == (wanted.dirty, wanted.global)
}

/// Where an access is allowed, looking without checking finds no other place.
///
/// # Errors
/// Where it does.
pub fn probe_agrees(shape: Shape) -> Result<(), String> {
    let Shape { memory, mut space, accesses } = shape;
    if space.control.efer & efer::LMA == 0 {
        return Ok(());
    }
    for (address, access, alignment_check) in accesses {
        space.alignment_check = alignment_check;
        let address = GuestVirtAddr::new(address);
        if let Ok(found) = translate(&memory, &space, address, access) {
            // Where tables are that are no memory it gives up.
            let probed = probe(space.control.cr3, address, |at| memory.read_u64(at).ok());
            if probed.is_some_and(|at| at != found.address) {
                return Err(format!("a probe of {address} finds {probed:?}, not {found:x?}"));
            }
        }
    }
    Ok(())
}
