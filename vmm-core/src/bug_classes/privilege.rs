// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions that exit, executed by user mode: the hardware checks the privilege level before
//! most intercepts, and what it leaves, or the emulator is led to, is checked here.

use crate::{
    AccessWidth, Exit, GuestPhysAddr, PortIo, Trapped,
    emulate::{
        Outcome,
        tests::machine::{Event, Machine as Emulated, code, flat},
    },
    state::{
        DescriptorTable, Exception, Gpr, Segment, SegmentAttributes, SegmentRegister, cr4, rflags,
    },
    vcpu::tests::machine::{CODE, HIGH, Machine, machine},
};

const GP: Result<(), Exception> = Err(Exception::GENERAL_PROTECTION);
const UD: Result<(), Exception> = Err(Exception::INVALID_OPCODE);
const MF: Result<(), Exception> = Err(Exception::FLOATING_POINT);

fn user() -> Machine {
    let mut machine = machine();
    machine.registers().cpl = 3;
    machine.registers().next_rip = Some(CODE + 3);
    machine.registers().control.cr4 = cr4::OSXSAVE;
    machine
}

#[test]
fn exits_that_reach_the_vmm_from_user_mode_fault_there() {
    for (exit, expected) in [
        (Exit::SetExtendedControl, GP),
        (Exit::Instruction(Trapped::CacheFlush), GP),
        (Exit::Instruction(Trapped::ReadPerformanceCounter), GP),
        (Exit::Instruction(Trapped::Virtualization), UD),
        (Exit::Instruction(Trapped::MonitorWait), UD),
        (Exit::Instruction(Trapped::Hidden), UD),
        (Exit::Instruction(Trapped::Resume), UD),
        (Exit::Instruction(Trapped::LegacyFpuError), MF),
    ] {
        let mut machine = user();
        machine.set_gpr(Gpr::Rax, 1);
        assert_eq!(machine.handle(exit), expected, "{exit:?}");
        assert_eq!(machine.ended(), None, "{exit:?}");
        assert_eq!(machine.registers().rip, CODE);
        assert_eq!(machine.registers().xcr0, 0);
    }
}

#[test]
fn a_hypercall_from_user_mode_reaches_no_hook() {
    use std::sync::Arc;

    use crate::vcpu::tests::{devices::Hook, machine::machine_with};

    for (cpl, expected) in [(0, 1234), (1, u64::MAX), (3, u64::MAX)] {
        let hook = Arc::<Hook>::default();
        let mut machine = machine_with(1, |builder| builder.hooks().add_hypercalls(5..=5, hook));
        machine.registers().cpl = cpl;
        machine.registers().next_rip = Some(CODE + 3);
        let arguments = [(Gpr::Rax, 5), (Gpr::Rbx, 1), (Gpr::Rcx, 2), (Gpr::Rdx, 3), (Gpr::Rsi, 4)];
        for (register, value) in arguments {
            machine.set_gpr(register, value);
        }
        machine.handle(Exit::Hypercall).unwrap();
        assert_eq!(machine.gpr(Gpr::Rax), expected, "privilege level {cpl}");
    }
}

/// Instructions that only privilege level 0 may execute: HLT, RDMSR, WRMSR, WBINVD, INVD, CLTS,
/// MOV to and from control and debug registers, LMSW, LGDT, LIDT, INVLPG, LLDT, LTR.
const PRIVILEGED: [&[u8]; 20] = [
    &[0xF4],
    &[0x0F, 0x32],
    &[0x0F, 0x30],
    &[0x0F, 0x09],
    &[0x0F, 0x08],
    &[0x0F, 0x06],
    &[0x0F, 0x22, 0xC0],
    &[0x0F, 0x22, 0xD8],
    &[0x0F, 0x22, 0xE0],
    &[0x0F, 0x20, 0xC0],
    &[0x0F, 0x20, 0xD8],
    &[0x0F, 0x20, 0xE0],
    &[0x0F, 0x23, 0xF8],
    &[0x0F, 0x21, 0xF8],
    &[0x0F, 0x01, 0xF0],
    &[0x0F, 0x01, 0x13],
    &[0x0F, 0x01, 0x1B],
    &[0x0F, 0x01, 0x3B],
    &[0x0F, 0x00, 0xD0],
    &[0x0F, 0x00, 0xD8],
];

/// Another CPU of the guest may put any of these in the place of the instruction that exited.
#[test]
fn the_emulator_gives_user_mode_nothing_privileged_in_any_mode() {
    type Build = fn(&[u8]) -> Emulated;
    let virtual_8086: Build = |code| {
        let mut machine = Emulated::protected(code);
        machine.cpu.rflags |= rflags::VM | rflags::IOPL;
        machine
    };
    let builds: [(&str, Build, &[u8]); 3] = [
        ("long mode", Emulated::long, &[1, 2, 3]),
        ("protected mode", Emulated::protected, &[1, 2, 3]),
        ("virtual-8086 mode", virtual_8086, &[3]),
    ];
    for (mode, build, levels) in builds {
        for code in PRIVILEGED {
            for cpl in levels {
                let mut machine = build(code);
                machine.cpu.cpl = *cpl;
                let before = machine.cpu.clone();
                let outcome = machine.run();
                // LLDT and LTR do not exist in virtual-8086 mode.
                let absent = mode == "virtual-8086 mode" && code.starts_with(&[0x0F, 0x00]);
                let fault =
                    if absent { Exception::INVALID_OPCODE } else { Exception::GENERAL_PROTECTION };
                assert_eq!(outcome, Outcome::Fault(fault), "{mode}, level {cpl}: {code:02x?}");
                assert_eq!(machine.cpu, before);
            }
        }
    }
}

/// Another CPU of a process that may use ports has put another instruction in the place of its OUTS:
/// one that the emulator does not know, or does not do in memory (MOVAPS; LOCK CMPXCHG16B).
#[test]
fn user_mode_cannot_have_the_emulator_fail_where_string_io_was() {
    let io = PortIo { port: 0x80, width: AccessWidth::Byte, is_input: false, is_string: true };
    for code in [&[0x0F, 0x28, 0xC1][..], &[0xF0, 0x48, 0x0F, 0xC7, 0x09]] {
        let mut machine = user();
        machine.enter_long_mode();
        // The entries on the way make a page of the supervisor's.
        for entry in [0x8000 + 256 * 8, 0x9000, 0xA000].map(GuestPhysAddr::new) {
            const WRITABLE_BY_USER: u64 = 6;
            let memory = machine.vm.memory();
            let value = memory.read_u64(entry).unwrap() | WRITABLE_BY_USER;
            memory.write_u64(entry, value).unwrap();
        }
        machine.registers().rflags |= rflags::IOPL;
        machine.set_gpr(Gpr::Rcx, HIGH + 0x3000);
        machine.poke(CODE, code);
        assert_eq!(machine.handle(Exit::PortIo(io)), Ok(()), "{code:02x?}");
        assert_eq!((machine.ended(), machine.registers().rip), (None, HIGH + CODE));
    }
}

/// Instructions of hardware virtualization, enclaves and the like, and what is switched off: VMRUN
/// to INVLPGA, VMLAUNCH to VMXOFF, VMFUNC, VMREAD, VMWRITE, GETSEC, ENCLS, ENCLV, PCONFIG, RDPRU,
/// INVLPGB, TLBSYNC, RDPID, RDTSCP, SYSCALL, SYSRET, XGETBV.
const ABSENT: [&[u8]; 26] = [
    &[0x0F, 0x01, 0xD8],
    &[0x0F, 0x01, 0xD9],
    &[0x0F, 0x01, 0xDA],
    &[0x0F, 0x01, 0xDB],
    &[0x0F, 0x01, 0xDC],
    &[0x0F, 0x01, 0xDD],
    &[0x0F, 0x01, 0xDE],
    &[0x0F, 0x01, 0xDF],
    &[0x0F, 0x01, 0xC2],
    &[0x0F, 0x01, 0xC3],
    &[0x0F, 0x01, 0xC4],
    &[0x0F, 0x01, 0xD4],
    &[0x0F, 0x78, 0xC0],
    &[0x0F, 0x79, 0xC0],
    &[0x0F, 0x37],
    &[0x0F, 0x01, 0xCF],
    &[0x0F, 0x01, 0xC0],
    &[0x0F, 0x01, 0xC5],
    &[0x0F, 0x01, 0xFD],
    &[0x0F, 0x01, 0xFE],
    &[0x0F, 0x01, 0xFF],
    &[0xF3, 0x0F, 0xC7, 0xF8],
    &[0x0F, 0x01, 0xF9],
    &[0x0F, 0x05],
    &[0x0F, 0x07],
    &[0x0F, 0x01, 0xD0],
];

/// Where the VMM interprets real mode, an instruction that it does not know ends the VM.
#[test]
fn instructions_that_no_guest_has_are_undefined_to_the_emulator() {
    for build in [Emulated::real as fn(&[u8]) -> Emulated, Emulated::protected, Emulated::long] {
        for code in ABSENT {
            let mut machine = build(code);
            let before = machine.cpu.clone();
            let outcome = machine.run();
            assert_eq!(outcome, Outcome::Fault(Exception::INVALID_OPCODE), "{code:02x?}");
            assert_eq!(machine.cpu, before);
        }
    }
    let mut machine = Emulated::real(&[0x0F, 0x01, 0xF9]);
    machine.cpu.time_auxiliary = Some(0x1234_5678);
    assert!(matches!(machine.run(), Outcome::Done { .. }));
    assert_eq!(machine.get(Gpr::Rcx), 0x1234_5678);
    for code in [&[0x0F, 0x34], &[0x0F, 0x35]] {
        // Real mode has no error codes.
        let fault = Exception { error_code: None, ..Exception::GENERAL_PROTECTION };
        assert_eq!(Emulated::real(code).run(), Outcome::Fault(fault), "{code:02x?}");
    }
}

/// Where the kernel of a 64-bit guest has a page of tables, and what user mode has mapped at the
/// lower half of that address.
const KERNEL_PAGE: u64 = 0xFFFF_8000_0000_3000;
const USER_PAGE: u64 = 0x3000;
/// Where the kernel's page is in guest-physical memory.
const FRAME: u64 = 0x5000;

/// User mode in a 32-bit code segment of a 64-bit guest.
fn compatibility(instruction: &[u8]) -> Emulated {
    const SUPERVISOR: u64 = 3;
    let mut machine = Emulated::long(instruction);
    *machine.cpu.segment_mut(SegmentRegister::Cs) = flat(code().with_dpl(3));
    machine.cpu.cpl = 3;
    machine.bus.add(FRAME);
    machine.bus.map(KERNEL_PAGE, FRAME, SUPERVISOR);
    machine
}

/// Compatibility mode has linear addresses of 32 bits, but not those of the CPU's own tables (Intel
/// SDM vol. 3, 2.4).
#[test]
fn compatibility_mode_asks_the_io_permission_map_of_the_kernel() {
    const MAP: u64 = 0x68;
    // in al, dx; rep outsb.
    for code in [&[0xEC][..], &[0xF3, 0x6E]] {
        let run = |port: u16| {
            let mut machine = compatibility(code)
                .set(Gpr::Rdx, port.into())
                .set(Gpr::Rsi, USER_PAGE)
                .set(Gpr::Rcx, 1);
            let attributes = SegmentAttributes::new().with_kind(11).with_present(true);
            let task = Segment { base: KERNEL_PAGE, limit: 0x100, ..flat(attributes) };
            *machine.cpu.segment_mut(SegmentRegister::Tr) = task;
            machine.bus.store(FRAME + 102, 2, MAP);
            machine.bus.store_bytes(FRAME + MAP, &[0xFF; 0x40]);
            machine.bus.store(FRAME + MAP + 0x80 / 8, 1, 0xFE);
            // In the page of user mode all bits are clear.
            let outcome = machine.run();
            let reached =
                machine.bus.log.iter().any(
                    |event| matches!(event, Event::In(at, _) | Event::Out(at, ..) if *at == port),
                );
            (outcome, reached)
        };
        assert_eq!(run(0x81), (Outcome::Fault(Exception::GENERAL_PROTECTION), false));
        assert_eq!(run(0x80), (Outcome::Done { debug_trap: false }, true));
    }
}

#[test]
fn compatibility_mode_loads_segments_from_the_table_of_the_kernel() {
    const DATA_3: u64 = 0x00CF_F300_0000_FFFF;
    // mov ds, ax.
    let run = |selector| {
        let mut machine = compatibility(&[0x8E, 0xD8]).set(Gpr::Rax, selector);
        machine.cpu.gdtr = DescriptorTable { base: KERNEL_PAGE, limit: 0x1F };
        machine.bus.store(FRAME + 8, 8, DATA_3);
        machine.bus.store(USER_PAGE + 16, 8, DATA_3);
        machine.run()
    };
    assert_eq!(run(8 | 3), Outcome::Done { debug_trap: false });
    assert_eq!(run(16 | 3), Outcome::Fault(Exception::with_code(13, 16)));
}
