// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest: what its vCPUs do, exit by exit.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use host_mock::{MockHost, Rest};
use vmm_core::{
    AccessWidth, Event, Exit, GuestPhysAddr, PortIo,
    boot::InitialState,
    memory::GuestMemory,
    mock_backend::{Guest, Registers},
    state::{ControlRegisters, Gpr, SegmentRegister, cr0, cr4, efer, rflags},
};
use vmm_devices::Uart;

/// The port at which the guest ends its VM.
pub const EXIT_PORT: u16 = 0xF4;
/// What it writes to its console.
pub const OUTPUT: &[u8] = b"az";

const KVM_WALL_CLOCK: u32 = 0x4B56_4D00;
const APIC_BASE: u32 = 0x1B;
const TSC_DEADLINE: u32 = 0x6E0;
const X2APIC_EOI: u32 = 0x80B;
const X2APIC_SPURIOUS: u32 = 0x80F;
const X2APIC_ICR: u32 = 0x830;
const X2APIC_LVT_TIMER: u32 = 0x832;
const X2APIC_INITIAL_COUNT: u32 = 0x838;
const X2APIC_DIVIDE: u32 = 0x83E;

const X2APIC_MODE: u64 = 0xFEE0_0C00;
const BOOTSTRAP: u64 = 1 << 8;
const APIC_ENABLED: u64 = 0x1FF;
const DEADLINE_MODE: u64 = 2 << 17;
const DIVIDE_BY_1: u64 = 0xB;
const ASSERT: u64 = 1 << 14;
const INIT: u64 = 5 << 8;
const STARTUP: u64 = 6 << 8;

/// How often a vCPU looks whether it waits in vain for another to wait.
const LOOK: Duration = Duration::from_millis(20);
/// How often it does so at the most.
const LOOKS: usize = 1000;

/// Where the guest's page tables are, and how many entries its top one has.
const TABLES: u64 = 0x10_0000;
const SPACES: u64 = 12;

/// What a vCPU does.
#[derive(Clone, Copy)]
enum Act {
    Out(u16, u8),
    Wrmsr(u32, u64),
    /// HLT with interrupts enabled, until an interrupt with this vector has come since the last
    /// that was awaited.
    Await(u8),
    /// A page fault that only shadow paging sees.
    Touch(u64),
    /// Goes on when the vCPU on this CPU of the host waits.
    AwaitRest(u32),
    End,
}

use Act::{Await, AwaitRest, End, Out, Touch, Wrmsr};

/// What the first vCPU does: writes, asks for the time, arms the timers of its local APIC and the
/// 8254 and waits for them, and cancels one; starts the second vCPU, if there is one, is woken by
/// it and wakes it; touches memory all over its address space; writes and ends the VM.
fn first(vcpus: u32, shadow: bool) -> Vec<Act> {
    let mut acts = vec![
        Out(Uart::COM_PORTS[0], OUTPUT[0]),
        Wrmsr(KVM_WALL_CLOCK, 0x8000),
        Wrmsr(APIC_BASE, X2APIC_MODE | BOOTSTRAP),
        Wrmsr(X2APIC_SPURIOUS, APIC_ENABLED),
        Wrmsr(X2APIC_LVT_TIMER, 0x40),
        Wrmsr(X2APIC_DIVIDE, DIVIDE_BY_1),
        Wrmsr(X2APIC_INITIAL_COUNT, 200_000),
        Await(0x40),
        Wrmsr(X2APIC_EOI, 0),
        Wrmsr(X2APIC_LVT_TIMER, DEADLINE_MODE | 0x40),
        Wrmsr(TSC_DEADLINE, 1 << 40),
        Wrmsr(TSC_DEADLINE, 0),
    ];
    // The 8259A pair at vector 0x20, the timer alone unmasked; the 8254 counts down once.
    let ports = [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFE)];
    acts.extend(ports.map(|(port, value)| Out(port, value)));
    acts.extend([Out(0x43, 0x30), Out(0x40, 0), Out(0x40, 4), Await(0x20), Out(0x20, 0x20)]);
    if vcpus > 1 {
        let to_second = |command| Wrmsr(X2APIC_ICR, 1 << 32 | ASSERT | command);
        acts.extend([AwaitRest(2), to_second(INIT), AwaitRest(2), to_second(STARTUP | 0x9A)]);
        acts.extend([Await(0x41), Wrmsr(X2APIC_EOI, 0), AwaitRest(2), to_second(0x42)]);
    }
    if shadow {
        acts.extend((0..SPACES).map(|space| Touch(space << 39)));
    }
    acts.extend([Out(Uart::COM_PORTS[0], OUTPUT[1]), End]);
    acts
}

/// What the second vCPU does: wakes the first, waits to be woken, and waits for ever.
fn second() -> Vec<Act> {
    vec![
        Wrmsr(APIC_BASE, X2APIC_MODE),
        Wrmsr(X2APIC_SPURIOUS, APIC_ENABLED),
        AwaitRest(1),
        Wrmsr(X2APIC_ICR, ASSERT | 0x41),
        Await(0x42),
        Wrmsr(X2APIC_EOI, 0),
    ]
}

/// The guest of vCPU `index`.
pub fn guest(host: &'static MockHost, index: u32, vcpus: u32, shadow: bool) -> Guest {
    let acts = if index == 0 { first(vcpus, shadow) } else { second() };
    let mut acts: VecDeque<Act> = acts.into();
    let mut come = HashSet::new();
    Box::new(move |registers, event| {
        if let Some(Event::Interrupt(vector)) = event {
            come.insert(vector.0);
        }
        registers.rflags |= rflags::IF;
        registers.next_rip = Some(registers.rip);
        loop {
            match acts.pop_front() {
                Some(AwaitRest(cpu)) => await_rest(host, cpu),
                Some(Await(vector)) if come.remove(&vector) => {}
                Some(Await(vector)) => {
                    acts.push_front(Await(vector));
                    return Exit::Halt;
                }
                Some(act) => return exit(act, registers),
                None => return Exit::Halt,
            }
        }
    })
}

fn await_rest(host: &MockHost, cpu: u32) {
    for _ in 0..LOOKS {
        if !host.sleeps() || host.rest(cpu..=cpu, LOOK) != Rest::Busy {
            return;
        }
    }
}

fn exit(act: Act, registers: &mut Registers) -> Exit {
    match act {
        Out(port, value) => out(registers, port, AccessWidth::Byte, value),
        End => out(registers, EXIT_PORT, AccessWidth::Dword, 0),
        Wrmsr(msr, value) => {
            registers.set_gpr(Gpr::Rcx, msr.into());
            registers.set_gpr(Gpr::Rax, value & 0xFFFF_FFFF);
            registers.set_gpr(Gpr::Rdx, value >> 32);
            Exit::WriteMsr
        }
        Touch(address) => Exit::PageFault { address, error_code: 0 },
        Await(_) | AwaitRest(_) => Exit::Halt,
    }
}

fn out(registers: &mut Registers, port: u16, width: AccessWidth, value: u8) -> Exit {
    registers.set_gpr(Gpr::Rax, value.into());
    Exit::PortIo(PortIo { port, width, is_input: false, is_string: false })
}

/// Puts the guest's page tables into its memory: each entry of the top one leads to tables of its
/// own, so that shadow paging needs many. Returns `state` with paging on.
pub fn with_paging(memory: &GuestMemory, state: InitialState) -> InitialState {
    const PRESENT: u64 = 1;
    let link = |from: u64, to: u64| {
        memory.write_u64(GuestPhysAddr::new(from), to | PRESENT).expect("the tables are in memory");
    };
    for space in 0..SPACES {
        let tables = TABLES + 0x1000 + 0x3000 * space;
        link(TABLES + 8 * space, tables);
        link(tables, tables + 0x1000);
        link(tables + 0x1000, tables + 0x2000);
        link(tables + 0x2000, 0x8000);
    }
    let mut segments = state.segments;
    let code = &mut segments[SegmentRegister::Cs as usize];
    code.attributes = code.attributes.with_long(true).with_default_big(false);
    let control = ControlRegisters {
        cr0: cr0::PE | cr0::ET | cr0::PG,
        cr3: TABLES,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        ..ControlRegisters::default()
    };
    InitialState { control, segments, ..state }
}
