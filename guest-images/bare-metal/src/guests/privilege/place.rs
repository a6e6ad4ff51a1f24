// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes and privilege levels.

use super::{CODE, legacy};
use crate::rt::trap;

/// What an instruction met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// The vector, or the number that stands for none.
    pub vector: u64,
    /// It was reported where exceptions of this instruction are.
    pub at_instruction: bool,
}

/// Default size of operands and addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    Bits16,
    Bits32,
    Bits64,
}

/// What the privilege level and the mode mean for instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// Privilege level 0 in protected and long mode.
    Kernel,
    /// Privilege level 3 there, with IOPL 0.
    User,
    /// Real mode.
    Real,
    /// Virtual-8086 mode with IOPL 0.
    Virtual8086,
    /// Virtual-8086 mode with IOPL 3.
    Virtual8086Io,
}

/// A mode and a privilege level.
pub struct Place {
    pub name: &'static str,
    pub width: Width,
    pub rights: Rights,
    run: fn() -> (u64, u64),
}

const fn place(name: &'static str, width: Width, rights: Rights, run: fn() -> (u64, u64)) -> Place {
    Place { name, width, rights, run }
}

/// All that are tried.
pub const PLACES: [Place; 11] = [
    place("64-bit mode, level 0", Width::Bits64, Rights::Kernel, || long(trap::Place::KERNEL)),
    place("64-bit mode, level 3", Width::Bits64, Rights::User, || long(trap::Place::USER)),
    place("compatibility mode, level 0", Width::Bits32, Rights::Kernel, || {
        compatibility(trap::Place::KERNEL32)
    }),
    place("compatibility mode, level 3", Width::Bits32, Rights::User, || {
        compatibility(trap::Place::USER32)
    }),
    place("protected mode, level 0", Width::Bits32, Rights::Kernel, || {
        legacy::run(legacy::privilege_kernel32, 0)
    }),
    place("protected mode, level 3", Width::Bits32, Rights::User, || {
        legacy::run(legacy::privilege_user32, 2)
    }),
    place("16-bit protected mode, level 0", Width::Bits16, Rights::Kernel, || {
        legacy::run(legacy::privilege_kernel16, 0)
    }),
    place("16-bit protected mode, level 3", Width::Bits16, Rights::User, || {
        legacy::run(legacy::privilege_user16, 2)
    }),
    place("real mode", Width::Bits16, Rights::Real, || legacy::run(legacy::privilege_real, 0)),
    place("virtual-8086 mode", Width::Bits16, Rights::Virtual8086, || {
        legacy::run(legacy::privilege_virtual_8086, 0x2_0002)
    }),
    place("virtual-8086 mode, IOPL 3", Width::Bits16, Rights::Virtual8086Io, || {
        legacy::run(legacy::privilege_virtual_8086, 0x2_3002)
    }),
];

impl Place {
    /// Executes the code and gives the vector that it met, and where.
    pub fn run(&self) -> (u64, u64) {
        (self.run)()
    }
}

fn long(place: trap::Place) -> (u64, u64) {
    let trap = run!(place, ["jmp rdi"], in("rdi") CODE,
        out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _);
    (trap.frame.vector, trap.frame.rip)
}

fn compatibility(place: trap::Place) -> (u64, u64) {
    let trap = run!(place, [".code32", "jmp edi"], in("rdi") CODE,
        out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _);
    (trap.frame.vector, trap.frame.rip)
}
