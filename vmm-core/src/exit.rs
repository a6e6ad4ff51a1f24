// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one neutral exit that every backend produces.

use crate::{
    AccessWidth, GuestPhysAddr,
    state::{Exception, Gpr, Vector},
};

/// Why a vCPU left the guest, free of any vendor's encoding.
///
/// Exits caused by an instruction are faults: the instruction has not been executed, and RIP
/// is on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The guest was not entered because attention was asked for.
    NotEntered,
    /// A physical interrupt, NMI or SMI, which the host has handled by now.
    HostInterrupt,
    /// The guest can take an interrupt now, as was asked for.
    InterruptWindow,
    /// The guest can take an NMI now, as was asked for.
    NmiWindow,
    /// CPUID.
    Cpuid,
    /// HLT.
    Halt,
    /// PAUSE, too often in a row.
    Pause,
    /// An instruction of the named kind that the guest has no use for.
    Instruction(Trapped),
    /// IN, OUT, INS or OUTS.
    PortIo(PortIo),
    /// RDMSR of the MSR in ECX.
    ReadMsr,
    /// WRMSR of the MSR in ECX.
    WriteMsr,
    /// An access to a control register.
    ControlRegister(ControlRegisterAccess),
    /// A switch of tasks, which the hardware has found allowed.
    TaskSwitch(TaskSwitch),
    /// XSETBV.
    SetExtendedControl,
    /// A hypercall instruction of this CPU's vendor.
    Hypercall,
    /// An access to guest-physical memory that is not mapped so.
    NestedPageFault(NestedPageFault),
    /// A page fault of the guest, with shadow paging: not delivered, and not in CR2.
    PageFault {
        /// Linear address.
        address: u64,
        /// Error code (AMD APM vol. 2, 8.4.2).
        error_code: u32,
    },
    /// INVLPG: with shadow paging, or interpreted.
    InvalidatePage {
        /// Linear address of the operand, if the hardware tells.
        address: Option<u64>,
    },
    /// An access to the page of the local APIC's registers that the hardware does not answer.
    ApicAccess(ApicAccess),
    /// The guest has written the local APIC's register at this offset from the start of its
    /// page. The instruction is done, the effect of the write is not.
    ApicWrite(u16),
    /// The guest has ended this interrupt, of which the I/O APIC has to hear. The instruction
    /// is done.
    EndOfInterrupt(Vector),
    /// The guest's task priority has fallen below what was asked for. The instruction is done.
    TaskPriority,
    /// The moment at which the hardware was to end the entry has come.
    Deadline,
    /// The nested page tables have an entry for this address that the CPU refuses: a defect
    /// of the VMM.
    NestedMisconfiguration(GuestPhysAddr),
    /// An exception that is intercepted, to be delivered to the guest after all.
    Exception(Exception),
    /// A machine check: the hardware failed while the guest ran.
    MachineCheck,
    /// A triple fault.
    Shutdown,
    /// The CPU refused the guest's state; which check failed, as far as it is known.
    EntryFailure(&'static str),
    /// An exit code that the backend does not know.
    Unknown(u64),
}

/// An exit that touches the guest's general-purpose registers, its MSRs and devices, and else
/// nothing: what was prepared for the last entry mostly holds for the next.
///
/// Only the kind, which is all that the commonest exits have to tell: [`Exit`] has the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BriefExit {
    /// [`Exit::Cpuid`].
    Cpuid,
    /// [`Exit::Hypercall`].
    Hypercall,
    /// [`Exit::PortIo`] by IN or OUT.
    PortIo,
    /// [`Exit::ReadMsr`].
    ReadMsr,
    /// [`Exit::WriteMsr`].
    WriteMsr,
    /// [`Exit::NestedPageFault`] by an instruction's access.
    Mmio,
}

impl BriefExit {
    /// The kind of `exit`, if it is one of these.
    #[inline]
    pub fn of(exit: &Exit) -> Option<Self> {
        Some(match exit {
            Exit::Cpuid => Self::Cpuid,
            Exit::Hypercall => Self::Hypercall,
            Exit::PortIo(io) if !io.is_string => Self::PortIo,
            Exit::ReadMsr => Self::ReadMsr,
            Exit::WriteMsr => Self::WriteMsr,
            Exit::NestedPageFault(fault) if !fault.is_fetch && !fault.in_page_walk => Self::Mmio,
            _ => return None,
        })
    }
}

/// Instructions that exit and have one simple answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trapped {
    /// Virtualization instructions of either vendor: #UD, for the guest has none.
    Virtualization,
    /// MONITOR and MWAIT, which CPUID hides: #UD.
    MonitorWait,
    /// Others that CPUID hides: #UD.
    Hidden,
    /// INVD or WBINVD: completed without effect, as memory stays coherent.
    CacheFlush,
    /// RDPMC, for which there is no counter: #GP.
    ReadPerformanceCounter,
    /// RSM outside system management mode: #UD.
    Resume,
    /// An x87 error that is to be reported by IRQ 13, as before CR0.NE existed: #MF, as VT-x, which
    /// sets that bit for every guest, reports it.
    LegacyFpuError,
}

/// A switch of tasks outside long mode. RFLAGS.RF is what the task that is left saves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskSwitch {
    /// Selector of the TSS to go to.
    pub selector: u16,
    /// What switches.
    pub source: TaskSwitchSource,
    /// What goes onto the stack of the new task: the error code of the exception whose gate it
    /// is.
    pub error_code: Option<u32>,
}

/// What switches tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskSwitchSource {
    /// A far CALL.
    Call,
    /// A far JMP.
    Jump,
    /// IRET with RFLAGS.NT set.
    Return,
    /// A task gate in the IDT. The event that led there is the one whose delivery the exit cut
    /// short; if there is none, it is a software interrupt, on whose instruction RIP is.
    Gate,
}

/// An access to I/O port space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortIo {
    /// Port number.
    pub port: u16,
    /// Width; never a quadword.
    pub width: AccessWidth,
    /// IN or INS.
    pub is_input: bool,
    /// INS or OUTS, maybe repeated: to be emulated.
    pub is_string: bool,
}

/// An access to a control register; its operand, if the hardware tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlRegisterAccess {
    /// MOV to register 0, 2, 3, 4 or 8. Without `source`, a write to register 0 may be CLTS or
    /// LMSW, too.
    Write {
        /// Number of the control register.
        register: u8,
        /// Where the value is.
        source: Option<Gpr>,
    },
    /// MOV from register 0, 2, 3, 4 or 8. Without `target`, a read of register 0 may be SMSW,
    /// too.
    Read {
        /// Number of the control register.
        register: u8,
        /// Where the value goes.
        target: Option<Gpr>,
    },
    /// CLTS.
    ClearTaskSwitched,
    /// LMSW with this operand.
    LoadMachineStatus(u16),
}

/// A fault of the second translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NestedPageFault {
    /// Faulting guest-physical address.
    pub address: GuestPhysAddr,
    /// Data write.
    pub is_write: bool,
    /// Instruction fetch.
    pub is_fetch: bool,
    /// The fault came while the CPU walked the guest's own page tables.
    pub in_page_walk: bool,
}

/// An access to the page of the local APIC's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicAccess {
    /// Offset into the page.
    pub offset: u16,
    /// What the access was part of.
    pub kind: ApicAccessKind,
}

/// What an access to the local APIC's page was part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicAccessKind {
    /// A data read of an instruction.
    Read,
    /// A data write of an instruction.
    Write,
    /// An instruction fetch.
    Fetch,
    /// The delivery of an event.
    Delivery,
    /// No linear access: a walk of the guest's page tables, or a fetch without paging.
    Physical,
}

/// An event to deliver at entry, or whose delivery an exit cut short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An external interrupt.
    Interrupt(Vector),
    /// A non-maskable interrupt.
    Nmi,
    /// An exception.
    Exception(Exception),
    /// INT n, INT3 or INTO; `length` is the instruction's, which delivery skips.
    SoftwareInterrupt {
        /// Vector.
        vector: Vector,
        /// Length of the instruction in bytes.
        length: u8,
    },
}
