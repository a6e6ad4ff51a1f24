// SPDX-License-Identifier: MIT OR Apache-2.0
//! From VMX's exit reasons to neutral exits (Intel SDM vol. 3, 27.2 and appendix C).

use bitfield_struct::bitfield;

use crate::{
    AccessWidth, ApicAccess, ApicAccessKind, ControlRegisterAccess, Event, Exit, GuestPhysAddr,
    NestedPageFault, PortIo, TaskSwitch, TaskSwitchSource, Trapped,
    state::{Exception, Gpr, Vector},
};

/// Basic exit reasons. An open set: unknown values are kept as they are.
pub mod reason {
    pub const EXCEPTION_OR_NMI: u16 = 0;
    pub const EXTERNAL_INTERRUPT: u16 = 1;
    pub const TRIPLE_FAULT: u16 = 2;
    pub const INIT: u16 = 3;
    pub const STARTUP_IPI: u16 = 4;
    pub const IO_SMI: u16 = 5;
    pub const OTHER_SMI: u16 = 6;
    pub const INTERRUPT_WINDOW: u16 = 7;
    pub const NMI_WINDOW: u16 = 8;
    pub const TASK_SWITCH: u16 = 9;
    pub const CPUID: u16 = 10;
    pub const GETSEC: u16 = 11;
    pub const HLT: u16 = 12;
    pub const INVD: u16 = 13;
    pub const INVLPG: u16 = 14;
    pub const RDPMC: u16 = 15;
    pub const RSM: u16 = 17;
    pub const VMCALL: u16 = 18;
    pub const VMCLEAR: u16 = 19;
    pub const VMXON: u16 = 27;
    pub const CONTROL_REGISTER: u16 = 28;
    pub const PORT_IO: u16 = 30;
    pub const RDMSR: u16 = 31;
    pub const WRMSR: u16 = 32;
    pub const INVALID_GUEST_STATE: u16 = 33;
    pub const MSR_LOADING: u16 = 34;
    pub const MWAIT: u16 = 36;
    pub const MONITOR: u16 = 39;
    pub const PAUSE: u16 = 40;
    pub const MACHINE_CHECK_AT_ENTRY: u16 = 41;
    pub const TPR_BELOW_THRESHOLD: u16 = 43;
    pub const APIC_ACCESS: u16 = 44;
    pub const VIRTUALIZED_EOI: u16 = 45;
    pub const EPT_VIOLATION: u16 = 48;
    pub const EPT_MISCONFIGURATION: u16 = 49;
    pub const INVEPT: u16 = 50;
    pub const PREEMPTION_TIMER: u16 = 52;
    pub const INVVPID: u16 = 53;
    pub const WBINVD: u16 = 54;
    pub const XSETBV: u16 = 55;
    pub const APIC_WRITE: u16 = 56;
    pub const INVPCID: u16 = 58;
    pub const VMFUNC: u16 = 59;
    pub const ENCLS: u16 = 60;
    pub const XSAVES: u16 = 63;
    pub const XRSTORS: u16 = 64;
    pub const SEAMCALL: u16 = 76;
    pub const TDCALL: u16 = 77;
    pub const RDMSR_IMMEDIATE: u16 = 84;
    pub const WRMSR_IMMEDIATE: u16 = 85;
}

/// The exit-reason field.
#[bitfield(u32)]
pub struct ExitReasonField {
    /// See [`reason`].
    pub basic: u16,
    #[bits(15)]
    __: u16,
    /// The guest was not entered: its state could not be loaded.
    pub entry_failure: bool,
}

/// Interruption information: of an exit, of an event whose delivery it cut short, and of an
/// event to deliver at entry (Intel SDM vol. 3, 24.8.3 and 24.9.2).
#[bitfield(u32)]
pub struct EventField {
    pub vector: u8,
    /// See [`event_kind`].
    #[bits(3)]
    pub kind: u8,
    pub has_error_code: bool,
    /// Of an exit: an IRET had ended the blocking of NMIs before.
    pub nmi_unblocking: bool,
    #[bits(18)]
    __: u32,
    pub valid: bool,
}

/// Values of [`EventField::kind`].
pub mod event_kind {
    pub const INTERRUPT: u8 = 0;
    pub const NMI: u8 = 2;
    pub const EXCEPTION: u8 = 3;
    pub const SOFTWARE_INTERRUPT: u8 = 4;
    /// INT1.
    pub const PRIVILEGED_SOFTWARE_EXCEPTION: u8 = 5;
}

/// Exit qualification of an I/O instruction (Intel SDM vol. 3, table 27-5).
#[bitfield(u64)]
struct PortQualification {
    #[bits(3)]
    size: u8,
    is_input: bool,
    is_string: bool,
    is_repeated: bool,
    is_immediate: bool,
    #[bits(9)]
    __: u16,
    port: u16,
    __: u32,
}

/// Exit qualification of a control-register access (Intel SDM vol. 3, table 27-3).
#[bitfield(u64)]
struct ControlRegisterQualification {
    #[bits(4)]
    register: u8,
    #[bits(2)]
    kind: u8,
    __: bool,
    __: bool,
    #[bits(4)]
    gpr: u8,
    #[bits(4)]
    __: u8,
    lmsw_source: u16,
    __: u32,
}

/// Exit qualification of a task switch (Intel SDM vol. 3, table 27-2).
#[bitfield(u64)]
struct TaskSwitchQualification {
    selector: u16,
    #[bits(14)]
    __: u16,
    #[bits(2)]
    source: u8,
    __: u32,
}

/// Exit qualification of an APIC access (Intel SDM vol. 3, table 27-6). That of an APIC write
/// has an offset alone.
#[bitfield(u64)]
struct ApicQualification {
    #[bits(12)]
    offset: u16,
    #[bits(4)]
    kind: u8,
    #[bits(48)]
    __: u64,
}

/// Exit qualification of an EPT violation (Intel SDM vol. 3, table 27-7).
#[bitfield(u64)]
pub struct ViolationQualification {
    pub read: bool,
    pub write: bool,
    pub fetch: bool,
    #[bits(4)]
    __: u8,
    pub has_linear_address: bool,
    pub final_translation: bool,
    #[bits(3)]
    __: u8,
    pub nmi_unblocking: bool,
    #[bits(51)]
    __: u64,
}

/// What an exit says beside its reason; each costs a VMREAD, so it is read when asked for.
pub trait ExitInformation {
    /// Exit qualification.
    fn qualification(&self) -> u64;
    /// Guest-physical address of an EPT violation or misconfiguration.
    fn guest_physical_address(&self) -> u64;
    /// The exception or NMI.
    fn event(&self) -> EventField;
    /// Its error code.
    fn error_code(&self) -> u32;
    /// The event whose delivery the exit cut short.
    fn vectoring_event(&self) -> EventField;
    /// Its error code.
    fn vectoring_error_code(&self) -> u32;
}

const PAGE_FAULT: u8 = 14;
const MACHINE_CHECK: u8 = 18;
/// Breakpoint and overflow: exceptions that an instruction raises on purpose.
const SOFTWARE_EXCEPTIONS: [u8; 2] = [3, 4];

/// The neutral exit for a basic reason. Entry failures have none.
pub fn exit(basic: u16, information: &impl ExitInformation) -> Exit {
    match basic {
        reason::EXCEPTION_OR_NMI => exception_or_nmi(information),
        reason::EXTERNAL_INTERRUPT
        | reason::INIT
        | reason::STARTUP_IPI
        | reason::IO_SMI
        | reason::OTHER_SMI => Exit::HostInterrupt,
        reason::TRIPLE_FAULT => Exit::Shutdown,
        reason::INTERRUPT_WINDOW => Exit::InterruptWindow,
        reason::NMI_WINDOW => Exit::NmiWindow,
        reason::CPUID => Exit::Cpuid,
        reason::HLT => Exit::Halt,
        reason::PAUSE => Exit::Pause,
        reason::VMCALL => Exit::Hypercall,
        reason::CONTROL_REGISTER => control_register(information.qualification()),
        reason::PORT_IO => port_io(information.qualification()),
        reason::RDMSR => Exit::ReadMsr,
        reason::WRMSR => Exit::WriteMsr,
        reason::TASK_SWITCH => task_switch(information),
        reason::XSETBV => Exit::SetExtendedControl,
        reason::INVLPG => Exit::InvalidatePage { address: Some(information.qualification()) },
        reason::EPT_VIOLATION => violation(information),
        reason::APIC_ACCESS => apic_access(information.qualification()),
        reason::APIC_WRITE => {
            Exit::ApicWrite(ApicQualification::from_bits(information.qualification()).offset())
        }
        reason::VIRTUALIZED_EOI => Exit::EndOfInterrupt(Vector(information.qualification() as u8)),
        reason::TPR_BELOW_THRESHOLD => Exit::TaskPriority,
        reason::PREEMPTION_TIMER => Exit::Deadline,
        reason::EPT_MISCONFIGURATION => {
            Exit::NestedMisconfiguration(GuestPhysAddr::new(information.guest_physical_address()))
        }
        basic => trapped(basic).map_or(Exit::Unknown(u64::from(basic)), Exit::Instruction),
    }
}

fn trapped(basic: u16) -> Option<Trapped> {
    Some(match basic {
        // The last two exit on every CPU that has trust domains, from user mode, too.
        reason::VMCLEAR..=reason::VMXON
        | reason::INVEPT
        | reason::INVVPID
        | reason::VMFUNC
        | reason::SEAMCALL
        | reason::TDCALL => Trapped::Virtualization,
        reason::MONITOR | reason::MWAIT => Trapped::MonitorWait,
        reason::INVD | reason::WBINVD => Trapped::CacheFlush,
        reason::RDPMC => Trapped::ReadPerformanceCounter,
        reason::RSM => Trapped::Resume,
        // The last two exit with the plain RDMSR and WRMSR, wherever the CPU has them.
        reason::GETSEC
        | reason::INVPCID
        | reason::ENCLS
        | reason::XSAVES
        | reason::XRSTORS
        | reason::RDMSR_IMMEDIATE
        | reason::WRMSR_IMMEDIATE => Trapped::Hidden,
        _ => return None,
    })
}

fn exception_or_nmi(information: &impl ExitInformation) -> Exit {
    let event = information.event();
    match (event.kind(), event.vector()) {
        (event_kind::NMI, _) => Exit::HostInterrupt,
        (_, MACHINE_CHECK) => Exit::MachineCheck,
        (_, PAGE_FAULT) => Exit::PageFault {
            address: information.qualification(),
            error_code: information.error_code(),
        },
        (_, vector) => Exit::Exception(Exception {
            vector: Vector(vector),
            error_code: event.has_error_code().then(|| information.error_code()),
            fault_address: None,
        }),
    }
}

fn control_register(qualification: u64) -> Exit {
    let qualification = ControlRegisterQualification::from_bits(qualification);
    let register = qualification.register();
    let gpr = Some(Gpr::from_encoding(qualification.gpr()));
    Exit::ControlRegister(match qualification.kind() {
        0 => ControlRegisterAccess::Write { register, source: gpr },
        1 => ControlRegisterAccess::Read { register, target: gpr },
        2 => ControlRegisterAccess::ClearTaskSwitched,
        _ => ControlRegisterAccess::LoadMachineStatus(qualification.lmsw_source()),
    })
}

fn port_io(qualification: u64) -> Exit {
    let qualification = PortQualification::from_bits(qualification);
    Exit::PortIo(PortIo {
        port: qualification.port(),
        width: match qualification.size() {
            0 => AccessWidth::Byte,
            1 => AccessWidth::Word,
            _ => AccessWidth::Dword,
        },
        is_input: qualification.is_input(),
        is_string: qualification.is_string(),
    })
}

fn task_switch(information: &impl ExitInformation) -> Exit {
    let qualification = TaskSwitchQualification::from_bits(information.qualification());
    let source = match qualification.source() {
        0 => TaskSwitchSource::Call,
        1 => TaskSwitchSource::Return,
        2 => TaskSwitchSource::Jump,
        _ => TaskSwitchSource::Gate,
    };
    let event = information.vectoring_event();
    let has_error_code =
        source == TaskSwitchSource::Gate && event.valid() && event.has_error_code();
    Exit::TaskSwitch(TaskSwitch {
        selector: qualification.selector(),
        source,
        error_code: has_error_code.then(|| information.vectoring_error_code()),
    })
}

fn apic_access(qualification: u64) -> Exit {
    let qualification = ApicQualification::from_bits(qualification);
    Exit::ApicAccess(ApicAccess {
        offset: qualification.offset(),
        kind: match qualification.kind() {
            0 => ApicAccessKind::Read,
            1 => ApicAccessKind::Write,
            2 => ApicAccessKind::Fetch,
            // Linear and guest-physical.
            3 | 10 => ApicAccessKind::Delivery,
            _ => ApicAccessKind::Physical,
        },
    })
}

fn violation(information: &impl ExitInformation) -> Exit {
    let qualification = ViolationQualification::from_bits(information.qualification());
    Exit::NestedPageFault(NestedPageFault {
        address: GuestPhysAddr::new(information.guest_physical_address()),
        is_write: qualification.write(),
        is_fetch: qualification.fetch(),
        in_page_walk: qualification.has_linear_address() && !qualification.final_translation(),
    })
}

/// True if an exit for this reason may have cut short the delivery of an event.
pub const fn may_interrupt_delivery(basic: u16) -> bool {
    matches!(
        basic,
        reason::EXCEPTION_OR_NMI
            | reason::TASK_SWITCH
            | reason::APIC_ACCESS
            | reason::EPT_VIOLATION
            | reason::EPT_MISCONFIGURATION
    )
}

/// The event whose delivery an exit cut short. Software interrupts and exceptions give none:
/// RIP is still on their instruction, which is executed again.
pub fn interrupted_event(field: EventField, error_code: u32, cr2: u64) -> Option<Event> {
    if !field.valid() {
        return None;
    }
    let vector = Vector(field.vector());
    match field.kind() {
        event_kind::INTERRUPT => Some(Event::Interrupt(vector)),
        event_kind::NMI => Some(Event::Nmi),
        event_kind::EXCEPTION if !SOFTWARE_EXCEPTIONS.contains(&vector.0) => {
            Some(Event::Exception(Exception {
                vector,
                error_code: field.has_error_code().then_some(error_code),
                fault_address: (vector.0 == PAGE_FAULT).then_some(cr2),
            }))
        }
        _ => None,
    }
}

/// An event to deliver at entry, as the entry fields encode it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    /// Interruption information.
    pub field: u32,
    /// Error code, if the event has one.
    pub error_code: Option<u32>,
    /// Length of the instruction behind a software interrupt.
    pub instruction_length: Option<u8>,
}

/// The encoding of an event to inject.
pub fn injection(event: Event) -> Injection {
    let field = EventField::new().with_valid(true);
    let (field, error_code, instruction_length) = match event {
        Event::Interrupt(vector) => {
            (field.with_kind(event_kind::INTERRUPT).with_vector(vector.0), None, None)
        }
        Event::Nmi => (field.with_kind(event_kind::NMI).with_vector(2), None, None),
        Event::Exception(exception) => (
            field
                .with_kind(event_kind::EXCEPTION)
                .with_vector(exception.vector.0)
                .with_has_error_code(exception.error_code.is_some()),
            exception.error_code,
            None,
        ),
        Event::SoftwareInterrupt { vector, length } => (
            field.with_kind(event_kind::SOFTWARE_INTERRUPT).with_vector(vector.0),
            None,
            Some(length),
        ),
    };
    Injection { field: field.into_bits(), error_code, instruction_length }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Information {
        qualification: u64,
        address: u64,
        event: u32,
        error_code: u32,
        vectoring: (u32, u32),
    }

    impl ExitInformation for Information {
        fn qualification(&self) -> u64 {
            self.qualification
        }
        fn guest_physical_address(&self) -> u64 {
            self.address
        }
        fn event(&self) -> EventField {
            EventField::from_bits(self.event)
        }
        fn error_code(&self) -> u32 {
            self.error_code
        }
        fn vectoring_event(&self) -> EventField {
            EventField::from_bits(self.vectoring.0)
        }
        fn vectoring_error_code(&self) -> u32 {
            self.vectoring.1
        }
    }

    fn with_qualification(basic: u16, qualification: u64) -> Exit {
        exit(basic, &Information { qualification, ..Information::default() })
    }

    #[test]
    fn decodes_port_io() {
        let expected =
            PortIo { port: 0x3F8, width: AccessWidth::Word, is_input: true, is_string: false };
        assert_eq!(with_qualification(30, 0x03F8_0009), Exit::PortIo(expected));
        let string =
            PortIo { port: 0xED, width: AccessWidth::Dword, is_input: false, is_string: true };
        assert_eq!(with_qualification(30, 0x00ED_0033), Exit::PortIo(string));
    }

    #[test]
    fn decodes_control_register_accesses() {
        let access = |qualification| match with_qualification(28, qualification) {
            Exit::ControlRegister(access) => access,
            other => panic!("{other:?}"),
        };
        let write = ControlRegisterAccess::Write { register: 4, source: Some(Gpr::R9) };
        assert_eq!(access(0x904), write);
        let read = ControlRegisterAccess::Read { register: 8, target: Some(Gpr::Rax) };
        assert_eq!(access(0x018), read);
        assert_eq!(access(0x020), ControlRegisterAccess::ClearTaskSwitched);
        assert_eq!(access(0x0011_0030), ControlRegisterAccess::LoadMachineStatus(0x11));
    }

    #[test]
    fn decodes_faults() {
        let fault = |qualification| {
            let information =
                Information { qualification, address: 0xFEE0_0300, ..Information::default() };
            exit(48, &information)
        };
        let expected = NestedPageFault {
            address: GuestPhysAddr::new(0xFEE0_0300),
            is_write: true,
            is_fetch: false,
            in_page_walk: false,
        };
        assert_eq!(fault(0x182), Exit::NestedPageFault(expected));
        let walk = NestedPageFault { is_write: false, in_page_walk: true, ..expected };
        assert_eq!(fault(0x081), Exit::NestedPageFault(walk));
        let corrupt = Information { address: 0x5000, ..Information::default() };
        assert_eq!(exit(49, &corrupt), Exit::NestedMisconfiguration(GuestPhysAddr::new(0x5000)));
    }

    #[test]
    fn decodes_accesses_to_the_local_apic() {
        let access = |offset, kind| Exit::ApicAccess(ApicAccess { offset, kind });
        for (qualification, expected) in [
            (0x0_00B0, access(0xB0, ApicAccessKind::Read)),
            (0x0_10B0, access(0xB0, ApicAccessKind::Write)),
            (0x0_2FFF, access(0xFFF, ApicAccessKind::Fetch)),
            (0x0_3300, access(0x300, ApicAccessKind::Delivery)),
            (0x0_A300, access(0x300, ApicAccessKind::Delivery)),
            (0x0_F300, access(0x300, ApicAccessKind::Physical)),
        ] {
            assert_eq!(with_qualification(44, qualification), expected);
        }
        assert_eq!(with_qualification(56, 0x300), Exit::ApicWrite(0x300));
        assert_eq!(with_qualification(45, 0x31), Exit::EndOfInterrupt(Vector(0x31)));
        assert!(may_interrupt_delivery(44) && !may_interrupt_delivery(56));
    }

    #[test]
    fn decodes_task_switches() {
        let switch = |qualification, vectoring| {
            exit(9, &Information { qualification, vectoring, ..Information::default() })
        };
        let expected = |source, error_code| {
            Exit::TaskSwitch(TaskSwitch { selector: 0x1238, source, error_code })
        };
        let stale = (0x0000_0B0D, 7);
        assert_eq!(switch(0x1238, stale), expected(TaskSwitchSource::Call, None));
        assert_eq!(switch(0x4000_1238, stale), expected(TaskSwitchSource::Return, None));
        assert_eq!(switch(0x8000_1238, stale), expected(TaskSwitchSource::Jump, None));
        let gate = |vectoring| switch(0xC000_1238, vectoring);
        assert_eq!(gate((0x8000_0040, 7)), expected(TaskSwitchSource::Gate, None));
        assert_eq!(gate((0x8000_0B0D, 7)), expected(TaskSwitchSource::Gate, Some(7)));
        assert_eq!(gate((0x8000_0430, 7)), expected(TaskSwitchSource::Gate, None));
    }

    #[test]
    fn decodes_exceptions() {
        let event = |event, error_code| {
            exit(0, &Information { event, error_code, ..Information::default() })
        };
        assert_eq!(event(0x8000_0B11, 0), Exit::Exception(Exception::ALIGNMENT_CHECK));
        assert_eq!(event(0x8000_0301, 0), Exit::Exception(Exception::DEBUG));
        assert_eq!(event(0x8000_0202, 0), Exit::HostInterrupt);
        assert_eq!(event(0x8000_0312, 0), Exit::MachineCheck);
    }

    #[test]
    fn decodes_what_shadow_paging_makes_exit() {
        let information = Information {
            qualification: 0x7FFF_F000,
            event: 0x8000_0B0E,
            error_code: 6,
            ..Information::default()
        };
        let expected = Exit::PageFault { address: 0x7FFF_F000, error_code: 6 };
        assert_eq!(exit(0, &information), expected);
        let expected = Exit::InvalidatePage { address: Some(0x1234_5678) };
        assert_eq!(with_qualification(14, 0x1234_5678), expected);
    }

    #[test]
    fn the_rest_has_simple_answers() {
        assert_eq!(with_qualification(19, 0), Exit::Instruction(Trapped::Virtualization));
        assert_eq!(with_qualification(54, 0), Exit::Instruction(Trapped::CacheFlush));
        assert_eq!(with_qualification(58, 0), Exit::Instruction(Trapped::Hidden));
        assert_eq!(with_qualification(999, 0), Exit::Unknown(999));
    }

    #[test]
    fn events_survive_the_round_trip() {
        let fault = Exception::page_fault(0x1234, 6);
        for event in [Event::Interrupt(Vector(0x30)), Event::Nmi, Event::Exception(fault)] {
            let Injection { field, error_code, .. } = injection(event);
            let field = EventField::from_bits(field);
            let back = interrupted_event(field, error_code.unwrap_or(0), 0x1234);
            assert_eq!(back, Some(event));
        }
        assert_eq!(interrupted_event(EventField::new(), 0, 0), None);
    }

    #[test]
    fn software_events_carry_their_length_and_are_executed_again() {
        let soft = injection(Event::SoftwareInterrupt { vector: Vector(0x80), length: 2 });
        assert_eq!((soft.field, soft.instruction_length), (0x8000_0480, Some(2)));
        assert_eq!(interrupted_event(EventField::from_bits(soft.field), 0, 0), None);
        let int3 = EventField::from_bits(0x8000_0603);
        assert_eq!(interrupted_event(int3, 0, 0), None);
    }
}
