// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random accesses, what the walker predicts of them, and the code that makes them.

use core::arch::global_asm;

use vmm_core::GuestVirtAddr;
use vmm_core::paging::walk::{
    Access, AccessKind, AddressSpace, Privilege, TranslateError, Translation, translate,
};
use vmm_core::state::rflags;

use super::dice::Dice;
use super::tables::{self, Place};
use super::{Mode, Model, shape};
use crate::rt::segments::{KERNEL_CODE, KERNEL_CODE32, USER_CODE, USER_CODE32};

/// Accesses to each shape.
pub const STEPS: usize = 16;

/// An access and what came of it. The layout is known to `protected.rs`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Step {
    /// Linear address.
    pub address: u64,
    /// Instruction that makes the access.
    pub instruction: u64,
    /// Value to be written.
    pub value: u32,
    /// RFLAGS to make it with.
    pub flags: u32,
    /// Code segment to make it in.
    pub code: u32,
    /// The trap that ended it, or [`LOAD_FAULT`].
    pub vector: u32,
    pub error: u32,
    /// EAX afterwards.
    pub result: u32,
    pub cr2: u64,
    pub trapped_at: u64,
}

/// In place of a vector: #GP at the load of CR3.
pub const LOAD_FAULT: u32 = 0x100 | 13;

/// What is to come of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// It succeeds, and reads a value.
    Done(Option<u32>),
    /// #PF with this error code.
    PageFault(u32),
    /// #GP(0): the address is not canonical.
    NonCanonical,
    /// #GP at the load of CR3.
    LoadFault,
}

unsafe extern "C" {
    static paging_user_read: u8;
    static paging_user_write: u8;
    static paging_kernel_read: u8;
    static paging_kernel_write: u8;
}

// The same bytes in 64-bit and 32-bit code.
global_asm!(
    r#"
    .macro paging_accesses who
    .global paging_\who\()_read
    .global paging_\who\()_write
paging_\who\()_read:
    .byte 0x8B, 0x07                # MOV EAX, [RDI]
    .byte 0xCD, 0x81                # INT 0x81
paging_\who\()_write:
    .byte 0x89, 0x07                # MOV [RDI], EAX
    .byte 0xCD, 0x81
    .endm

    .section .text.paging_user, "ax", @progbits
    .balign 4096
    paging_accesses user
    .balign 4096
    .text
    paging_accesses kernel
    "#
);

/// The page that users execute.
pub fn user_page() -> u64 {
    (&raw const paging_user_read) as u64
}

fn instruction(access: Access, address: u64) -> u64 {
    match (access.kind, access.privilege) {
        (AccessKind::Fetch, _) => address,
        (AccessKind::Read, Privilege::User) => user_page(),
        (AccessKind::Write, Privilege::User) => (&raw const paging_user_write) as u64,
        (AccessKind::Read, _) => (&raw const paging_kernel_read) as u64,
        (AccessKind::Write, _) => (&raw const paging_kernel_write) as u64,
    }
}

fn code_segment(mode: Mode, privilege: Privilege) -> u16 {
    match (mode, privilege) {
        (Mode::Long, Privilege::User) => USER_CODE,
        (Mode::Long, _) => KERNEL_CODE,
        (_, Privilege::User) => USER_CODE32,
        _ => KERNEL_CODE32,
    }
}

/// An address that the slots in use make up; the offset is that of a line's address.
fn address(dice: &mut Dice, mode: Mode) -> u64 {
    let top = dice.pick(shape::top_slots(mode)).unwrap_or_default() as u64;
    let mut slot = || dice.pick(shape::slots(mode)).unwrap_or_default() as u64;
    let address = match mode {
        Mode::Legacy => top << 22 | slot() << 12,
        Mode::Pae => top << 30 | slot() << 21 | slot() << 12,
        // Bit 47 is repeated above.
        Mode::Long => {
            let low = top << 39 | slot() << 30 | slot() << 21 | slot() << 12;
            (((low << 16) as i64) >> 16) as u64
        }
    };
    address | dice.roll(256) << 4 | 8
}

/// Draws an access and has the walker make it on its own copy of the tables.
///
/// What the CPU could not survive is drawn again: to execute what is no code, or to reach this
/// program's own memory.
pub fn draw(
    dice: &mut Dice,
    mode: Mode,
    model: &Model,
    space: &mut AddressSpace,
) -> (Step, Expected) {
    const KINDS: [AccessKind; 3] = [AccessKind::Read, AccessKind::Write, AccessKind::Fetch];
    loop {
        let mut address = address(dice, mode);
        let kind = dice.pick(&KINDS).unwrap_or(AccessKind::Read);
        let user = dice.one_in(2);
        let privilege = if user { Privilege::User } else { Privilege::Supervisor };
        let access = Access { kind, privilege };
        space.alignment_check = dice.one_in(2);
        if kind == AccessKind::Fetch {
            address &= !0xF;
        } else if mode == Mode::Long {
            address ^= dice.bit(32, 47);
        }
        let walk =
            |dry| translate(&tables::Model { dry }, space, GuestVirtAddr::new(address), access);
        if let Ok(page) = walk(true) {
            let place = tables::place(page.address.as_u64());
            if place == Place::Other || kind == AccessKind::Fetch && place != Place::Data {
                continue;
            }
        }
        let expected = if mode == Mode::Pae && model.keeps_pointers && pointers_are_bad(model) {
            Expected::LoadFault
        } else {
            expectation(kind, walk(false))
        };
        let value = match expected {
            Expected::Done(value) => value.unwrap_or_default(),
            _ => 0,
        };
        let flags = rflags::FIXED | if space.alignment_check { rflags::AC } else { 0 };
        let step = Step {
            address,
            instruction: instruction(access, address),
            value,
            flags: flags as u32,
            code: code_segment(mode, privilege).into(),
            ..Step::default()
        };
        return (step, expected);
    }
}

fn expectation(kind: AccessKind, walked: Result<Translation, TranslateError>) -> Expected {
    match walked {
        Ok(page) if kind == AccessKind::Fetch => {
            Expected::Done(Some((page.address.as_u64() >> 4) as u32))
        }
        Ok(page) => Expected::Done(tables::content(page.address.as_u64())),
        Err(TranslateError::PageFault(code)) => Expected::PageFault(code),
        Err(_) => Expected::NonCanonical,
    }
}

/// Whether a present one of the top entries has a reserved bit set (Intel SDM vol. 3, 4.4.1).
fn pointers_are_bad(model: &Model) -> bool {
    let wide = u64::MAX << model.features.physical_address_bits.clamp(32, 52);
    (0..4).any(|index| {
        let entry =
            u64::from(tables::model(index * 8)) | u64::from(tables::model(index * 8 + 4)) << 32;
        entry & 1 == 1 && entry & (wide | 0x1E6) != 0
    })
}
