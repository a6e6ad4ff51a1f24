// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits of every kind, with operands of any kind.

use super::{
    model::Expected,
    state::{self, CODE, LEGAL_CR4, LEGAL_EFER},
};
use crate::{
    AccessWidth, ApicAccess, ApicAccessKind, ControlRegisterAccess, Event, Exit, GuestPhysAddr,
    NestedPageFault, PortIo, TaskSwitch, TaskSwitchSource, Trapped, Vector,
    emulate::tests::{hostile, random::Random},
    memory::GuestMemory,
    mock_backend::Registers,
    msr::is_canonical,
    state::{Exception, Gpr, cr0, cr4},
};

/// What an exit leads to as far as it is known beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// It is dealt with without the guest's registers.
    Stays,
    /// The instruction is skipped, or faults and changes nothing.
    Skips,
    /// An instruction from memory is executed.
    Emulates,
    /// The VM ends.
    Ends,
}

impl Rule {
    /// That for `exit`.
    pub fn of(exit: &Exit) -> Self {
        use ControlRegisterAccess::{ClearTaskSwitched, LoadMachineStatus, Read, Write};

        match exit {
            Exit::NotEntered
            | Exit::HostInterrupt
            | Exit::InterruptWindow
            | Exit::NmiWindow
            | Exit::TaskPriority
            | Exit::Deadline
            | Exit::ApicWrite(_)
            | Exit::EndOfInterrupt(_)
            | Exit::Exception(_) => Self::Stays,
            Exit::PortIo(PortIo { is_string: true, .. })
            | Exit::NestedPageFault(_)
            | Exit::PageFault { .. }
            | Exit::ApicAccess(_)
            | Exit::TaskSwitch(_)
            | Exit::InvalidatePage { address: None } => Self::Emulates,
            Exit::ControlRegister(
                Write { source: Some(_), .. }
                | Read { target: Some(_), .. }
                | ClearTaskSwitched
                | LoadMachineStatus(_),
            ) => Self::Skips,
            Exit::ControlRegister(_) => Self::Emulates,
            Exit::NestedMisconfiguration(_)
            | Exit::MachineCheck
            | Exit::Shutdown
            | Exit::EntryFailure(_)
            | Exit::Unknown(_) => Self::Ends,
            Exit::Cpuid
            | Exit::Halt
            | Exit::Pause
            | Exit::Instruction(_)
            | Exit::PortIo(_)
            | Exit::ReadMsr
            | Exit::WriteMsr
            | Exit::SetExtendedControl
            | Exit::Hypercall
            | Exit::InvalidatePage { .. } => Self::Skips,
        }
    }
}

/// Registers of the local APIC in x2APIC mode, and what else belongs to it.
const APIC_MSRS: [u32; 2] = [0x1B, 0x6E0];

/// MSRs that exist, ends of ranges, and some that never do.
const MSRS: [u32; 32] = [
    0x10,
    0x17,
    0x3A,
    0x3B,
    0x8B,
    0xC1,
    0xFE,
    0x174,
    0x175,
    0x176,
    0x179,
    0x17A,
    0x1A0,
    0x1D9,
    0x200,
    0x20F,
    0x250,
    0x277,
    0x2FF,
    0x480,
    0xDA0,
    0x4B56_4D00,
    0x4B56_4D01,
    0xC000_0080,
    0xC000_0081,
    0xC000_0082,
    0xC000_0084,
    0xC000_0100,
    0xC000_0102,
    0xC000_0103,
    0xC001_0015,
    0xC001_0117,
];

/// A number of an MSR; in a calm life none of the local APIC's.
fn msr(random: &mut Random, calm: bool) -> u32 {
    let msr = match random.below(4) {
        0 => random.bits() as u32,
        1 if !calm => 0x800 + random.below(0x40) as u32,
        2 if !calm => *random.pick(&APIC_MSRS),
        _ => *random.pick(&MSRS),
    };
    let is_apic = (0x800..0x900).contains(&msr) || APIC_MSRS.contains(&msr);
    if calm && is_apic { 0x277 } else { msr }
}

fn width(random: &mut Random) -> AccessWidth {
    *random.pick(&[AccessWidth::Byte, AccessWidth::Word, AccessWidth::Dword])
}

fn address(random: &mut Random) -> GuestPhysAddr {
    GuestPhysAddr::new(match random.below(5) {
        0 => 0xFEE0_0000 + random.below(0x1000),
        1 => random.below(0x20_1000),
        2 => 0xFED0_0000 + random.below(0x1000),
        _ => random.operand(),
    })
}

/// An exception, of a vector that has no error code perhaps with one.
pub fn exception(random: &mut Random) -> Exception {
    let vector = random.below(32) as u8;
    if vector == 14 {
        return Exception::page_fault(random.operand(), random.bits() as u32);
    }
    let has_code = matches!(vector, 8 | 10..=13 | 17) ^ random.chance(8);
    let error_code = has_code.then(|| random.bits() as u32);
    Exception { vector: Vector(vector), error_code, fault_address: None }
}

/// An event that the guest itself, or the hardware, was delivering.
pub fn event(random: &mut Random) -> Event {
    match random.below(8) {
        0 => Event::Nmi,
        1 => Event::Interrupt(Vector(random.bits() as u8)),
        _ => Event::Exception(exception(random)),
    }
}

/// An exit of a guest that lets the interrupts alone, so that they can be counted.
pub fn calm(random: &mut Random, registers: &mut Registers) -> Exit {
    match random.below(14) {
        0 => Exit::HostInterrupt,
        1 => Exit::InterruptWindow,
        2 => Exit::NmiWindow,
        3 => Exit::Deadline,
        4 => Exit::TaskPriority,
        5 => Exit::Pause,
        6 => Exit::Exception(exception(random)),
        7 => Exit::PageFault { address: random.operand(), error_code: random.bits() as u32 },
        8 => Exit::Hypercall,
        9 => Exit::Instruction(Trapped::CacheFlush),
        10 => Exit::PortIo(port(random, false)),
        11 => {
            operands(random, registers, true);
            if random.chance(2) { Exit::ReadMsr } else { Exit::WriteMsr }
        }
        12 => Exit::ControlRegister(match random.below(3) {
            0 => ControlRegisterAccess::ClearTaskSwitched,
            1 => ControlRegisterAccess::Write { register: 4, source: Some(gpr(random)) },
            _ => ControlRegisterAccess::Read { register: 0, target: Some(gpr(random)) },
        }),
        _ => Exit::Cpuid,
    }
}

fn operands(random: &mut Random, registers: &mut Registers, calm: bool) {
    registers.set_gpr(Gpr::Rcx, msr(random, calm).into());
    registers.set_gpr(Gpr::Rax, random.operand());
    registers.set_gpr(Gpr::Rdx, if random.chance(2) { 0 } else { random.operand() });
}

fn gpr(random: &mut Random) -> Gpr {
    Gpr::from_encoding(random.below(16) as u8)
}

fn port(random: &mut Random, is_string: bool) -> PortIo {
    let port = if random.chance(2) { random.below(0x100) } else { random.below(0x1_0000) };
    PortIo { port: port as u16, width: width(random), is_input: random.chance(2), is_string }
}

/// An exit of any kind.
pub fn any(random: &mut Random, registers: &mut Registers) -> Exit {
    match random.below(16) {
        0..=4 => calm(random, registers),
        5 => {
            operands(random, registers, false);
            if random.chance(4) { Exit::ReadMsr } else { Exit::WriteMsr }
        }
        6 => Exit::PortIo(port(random, true)),
        7 | 8 => Exit::NestedPageFault(NestedPageFault {
            address: address(random),
            is_write: random.chance(2),
            is_fetch: random.chance(8),
            in_page_walk: random.chance(8),
        }),
        9 => Exit::ControlRegister(control_register(random)),
        10 => Exit::TaskSwitch(task_switch(random)),
        11 => {
            registers.set_gpr(Gpr::Rcx, u64::from(random.chance(8)));
            registers.set_gpr(Gpr::Rax, random.operand() & *random.pick(&[7, 0xFF, u64::MAX]));
            registers.set_gpr(Gpr::Rdx, random.operand() * u64::from(random.chance(4)));
            registers.control.cr4 |= if random.chance(2) { cr4::OSXSAVE } else { 0 };
            Exit::SetExtendedControl
        }
        12 => {
            let address = random.chance(2).then(|| random.operand());
            Exit::InvalidatePage { address }
        }
        13 => Exit::ApicAccess(ApicAccess {
            offset: random.below(0x1000) as u16,
            kind: *random.pick(&[
                ApicAccessKind::Read,
                ApicAccessKind::Write,
                ApicAccessKind::Fetch,
                ApicAccessKind::Delivery,
                ApicAccessKind::Physical,
            ]),
        }),
        14 => {
            let offset = random.bits() as u16;
            registers.apic_registers.insert(offset, random.bits() as u32);
            Exit::ApicWrite(offset)
        }
        _ => seldom(random),
    }
}

fn control_register(random: &mut Random) -> ControlRegisterAccess {
    let register = *random.pick(&[0, 2, 3, 4, 8, 0, 4, 1, 15]);
    match random.below(8) {
        0 => ControlRegisterAccess::ClearTaskSwitched,
        1 => ControlRegisterAccess::LoadMachineStatus(random.bits() as u16),
        2 => ControlRegisterAccess::Write { register, source: None },
        3 => ControlRegisterAccess::Read { register, target: None },
        4 => ControlRegisterAccess::Read { register, target: Some(gpr(random)) },
        _ => ControlRegisterAccess::Write { register, source: Some(gpr(random)) },
    }
}

fn task_switch(random: &mut Random) -> TaskSwitch {
    TaskSwitch {
        selector: if random.chance(4) { random.bits() as u16 } else { random.below(0x80) as u16 },
        source: *random.pick(&[
            TaskSwitchSource::Call,
            TaskSwitchSource::Jump,
            TaskSwitchSource::Return,
            TaskSwitchSource::Gate,
        ]),
        error_code: random.chance(2).then(|| random.bits() as u32),
    }
}

fn seldom(random: &mut Random) -> Exit {
    match random.below(16) {
        0 => Exit::MachineCheck,
        1 => Exit::Shutdown,
        2 => Exit::EntryFailure("a check"),
        3 => Exit::Unknown(random.bits()),
        4 => Exit::NestedMisconfiguration(address(random)),
        5 => Exit::EndOfInterrupt(Vector(random.bits() as u8)),
        6..=8 => Exit::Halt,
        9 => Exit::NotEntered,
        _ => Exit::Instruction(*random.pick(&[
            Trapped::Virtualization,
            Trapped::MonitorWait,
            Trapped::Hidden,
            Trapped::ReadPerformanceCounter,
            Trapped::Resume,
            Trapped::LegacyFpuError,
        ])),
    }
}

/// Puts the instruction that exits to [`CODE`], behind prefixes that do not change it; its
/// length. `None` for exits of other instructions.
pub fn place(random: &mut Random, memory: &GuestMemory, exit: &Exit) -> Option<u64> {
    let opcode: &[u8] = match exit {
        Exit::Cpuid => &[0x0F, 0xA2],
        Exit::Halt => &[0xF4],
        Exit::ReadMsr => &[0x0F, 0x32],
        Exit::WriteMsr => &[0x0F, 0x30],
        Exit::Hypercall => &[0x0F, 0x01, 0xC1],
        Exit::SetExtendedControl => &[0x0F, 0x01, 0xD1],
        Exit::Instruction(Trapped::CacheFlush) => &[0x0F, 0x09],
        Exit::PortIo(PortIo { is_string: false, is_input: true, .. }) => &[0xEC],
        Exit::PortIo(PortIo { is_string: false, is_input: false, .. }) => &[0xEE],
        Exit::ControlRegister(ControlRegisterAccess::ClearTaskSwitched) => &[0x0F, 0x06],
        _ => return None,
    };
    let mut bytes = vec![0x2E; random.below(8) as usize];
    bytes.extend_from_slice(opcode);
    state::store(memory, CODE, &bytes);
    Some(bytes.len() as u64)
}

/// Puts any instruction to [`CODE`], which some handlers execute: often one that has much to do.
pub fn place_any(random: &mut Random, memory: &GuestMemory) -> [u8; 15] {
    const SYSTEM: [&[u8]; 16] = [
        &[0x0F, 0x22, 0xC0], // mov cr0, eax
        &[0x0F, 0x22, 0xD8], // mov cr3, eax
        &[0x0F, 0x22, 0xE0], // mov cr4, eax
        &[0x0F, 0x23, 0xF0], // mov dr6, eax
        &[0x0F, 0x23, 0xF8], // mov dr7, eax
        &[0x0F, 0x01, 0xF0], // lmsw ax
        &[0x0F, 0x01, 0x38], // invlpg [eax]
        &[0x0F, 0x01, 0x10], // lgdt [eax]
        &[0x0F, 0x30],       // wrmsr
        &[0x0F, 0x01, 0xD1], // xsetbv
        &[0xF4],             // hlt
        &[0xCF],             // iret
        &[0xCD, 0x20],       // int 0x20
        &[0xFF, 0x28],       // jmp far [eax]
        &[0xF3, 0x6C],       // rep insb
        &[0xF3, 0xA5],       // rep movsd
    ];
    let mut code = hostile::code(random);
    if random.chance(3) {
        let bytes = random.pick(&SYSTEM);
        code[..bytes.len()].copy_from_slice(bytes);
    }
    state::store(memory, CODE, &code);
    code
}

/// What the architecture says of the values that an instruction is to write, told without the
/// code that is tested.
pub fn expected(exit: &Exit, registers: &Registers) -> Expected {
    const GP: Expected = Expected::Exception(13);
    const UD: Expected = Expected::Exception(6);
    let must_fault = |faults: bool| if faults { GP } else { Expected::Anything };
    let pair = registers.gpr(Gpr::Rdx) << 32 | registers.gpr(Gpr::Rax) & 0xFFFF_FFFF;
    match exit {
        Exit::Exception(exception) => Expected::This(*exception),
        Exit::Cpuid | Exit::Hypercall | Exit::Pause | Exit::Halt => Expected::NoException,
        Exit::PortIo(io) if !io.is_string => Expected::NoException,
        Exit::Instruction(Trapped::CacheFlush) => must_fault(registers.cpl != 0),
        Exit::Instruction(Trapped::ReadPerformanceCounter) => GP,
        Exit::Instruction(Trapped::LegacyFpuError) => Expected::Exception(16),
        Exit::Instruction(_) => UD,
        Exit::SetExtendedControl if registers.control.cr4 & cr4::OSXSAVE == 0 => UD,
        Exit::SetExtendedControl => {
            // x87 always, AVX with SSE only, and nothing beyond AVX-512.
            let illegal = pair & 1 == 0 || pair & 6 == 4 || pair & !0xE7 != 0;
            must_fault(registers.cpl != 0 || registers.gpr(Gpr::Rcx) as u32 != 0 || illegal)
        }
        Exit::WriteMsr => must_fault(refuses(registers.gpr(Gpr::Rcx) as u32, pair)),
        Exit::ControlRegister(ControlRegisterAccess::Write { register, source: Some(source) }) => {
            let wide = state::is_64_bit_code(registers);
            let value = registers.gpr(*source) & if wide { u64::MAX } else { u32::MAX.into() };
            let has = |bit: u64| value & bit != 0;
            match register {
                0 => must_fault(
                    value >> 32 != 0
                        || has(cr0::PG) && !has(cr0::PE)
                        || has(cr0::NW) && !has(cr0::CD),
                ),
                2 => Expected::Anything,
                3 => must_fault(registers.control.efer & 1 << 10 != 0 && value >> 52 != 0),
                4 => must_fault(value & !LEGAL_CR4 != 0),
                8 => must_fault(value > 15),
                _ => UD,
            }
        }
        _ if Rule::of(exit) == Rule::Stays => Expected::NoException,
        _ => Expected::Anything,
    }
}

/// True if the MSR takes no such value on any model.
fn refuses(msr: u32, value: u64) -> bool {
    match msr {
        0xC000_0080 => value & !LEGAL_EFER != 0,
        0xC000_0082 | 0xC000_0083 | 0xC000_0100..=0xC000_0102 | 0x175 | 0x176 => {
            !is_canonical(value)
        }
        0xC000_0084 | 0xC000_0103 => value >> 32 != 0,
        0x277 => value.to_le_bytes().iter().any(|kind| !matches!(kind, 0 | 1 | 4..=7)),
        0xFE | 0x179 | 0x1D9 | 0x480 | 0xDA0 | 0xC001_0117 => value != 0,
        _ => false,
    }
}
