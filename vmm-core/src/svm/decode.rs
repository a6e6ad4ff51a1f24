// SPDX-License-Identifier: MIT OR Apache-2.0
//! From SVM's exit codes to neutral exits (AMD APM vol. 2, appendix C).

use super::vmcb::{
    ControlArea, EventInfo, ExitCode, NestedFaultInfo, PortIoInfo, TaskSwitchInfo, event_kind,
};
use crate::{
    AccessWidth, BriefExit, ControlRegisterAccess, Event, Exit, GuestPhysAddr, NestedPageFault,
    PortIo, TaskSwitch, TaskSwitchSource, Trapped,
    state::{Exception, Vector},
};

/// Breakpoint and overflow: exceptions that an instruction raises on purpose.
const SOFTWARE_EXCEPTIONS: [u8; 2] = [3, 4];
const PAGE_FAULT: u8 = 14;

/// The kind of an exit that is brief; sets `exit`, as [`exit`](fn@exit) gives it, if there is more
/// to tell.
#[inline(always)]
pub fn brief_exit(control: &ControlArea, exit: &mut Exit) -> Option<BriefExit> {
    Some(match control.exit_code {
        ExitCode::CPUID => BriefExit::Cpuid,
        ExitCode::MSR if control.exit_info1 & 1 == 0 => BriefExit::ReadMsr,
        ExitCode::MSR => BriefExit::WriteMsr,
        ExitCode::VMMCALL => BriefExit::Hypercall,
        ExitCode::PORT_IO => {
            *exit = port_io(PortIoInfo::from_bits(control.exit_info1));
            return BriefExit::of(exit);
        }
        ExitCode::NESTED_PAGE_FAULT => {
            let info = NestedFaultInfo::from_bits(control.exit_info1);
            *exit = nested_fault(info, control.exit_info2);
            return BriefExit::of(exit);
        }
        _ => return None,
    })
}

/// The neutral exit for what `control` says. IRET and intercepted #DB have a meaning of the
/// backend's own, which it looks at first.
pub fn exit(control: &ControlArea) -> Exit {
    let (info1, info2) = (control.exit_info1, control.exit_info2);
    match control.exit_code {
        ExitCode::INTERRUPT | ExitCode::NMI | ExitCode::SMI | ExitCode::INIT => Exit::HostInterrupt,
        ExitCode::VIRTUAL_INTERRUPT => Exit::InterruptWindow,
        ExitCode::IRET => Exit::NmiWindow,
        ExitCode::HLT => Exit::Halt,
        ExitCode::PAUSE => Exit::Pause,
        ExitCode::CPUID => Exit::Cpuid,
        ExitCode::PORT_IO => port_io(PortIoInfo::from_bits(info1)),
        ExitCode::MSR if info1 & 1 == 0 => Exit::ReadMsr,
        ExitCode::MSR => Exit::WriteMsr,
        ExitCode::VMMCALL => Exit::Hypercall,
        ExitCode::XSETBV => Exit::SetExtendedControl,
        ExitCode::NESTED_PAGE_FAULT => nested_fault(NestedFaultInfo::from_bits(info1), info2),
        ExitCode::TASK_SWITCH => {
            let by_gate = control.exit_interrupt_info.valid();
            task_switch(info1, TaskSwitchInfo::from_bits(info2), by_gate)
        }
        ExitCode::SHUTDOWN => Exit::Shutdown,
        code @ ExitCode::READ_CR0..=ExitCode::WRITE_CR15 => {
            let register = (code & 0xF) as u8;
            Exit::ControlRegister(match code & 0x10 {
                0 => ControlRegisterAccess::Read { register, target: None },
                _ => ControlRegisterAccess::Write { register, source: None },
            })
        }
        ExitCode::MACHINE_CHECK => Exit::MachineCheck,
        ExitCode::PAGE_FAULT => Exit::PageFault { address: info2, error_code: info1 as u32 },
        ExitCode::INVLPG => Exit::InvalidatePage { address: None },
        code @ ExitCode::EXCEPTION_0..=ExitCode::EXCEPTION_31 => {
            Exit::Exception(exception((code - ExitCode::EXCEPTION_0) as u8, info1, info2))
        }
        code => trapped(code).map_or(Exit::Unknown(code), Exit::Instruction),
    }
}

fn trapped(code: u64) -> Option<Trapped> {
    Some(match code {
        ExitCode::VMRUN..=ExitCode::SKINIT | ExitCode::INVLPGA => Trapped::Virtualization,
        ExitCode::MONITOR | ExitCode::MWAIT | ExitCode::MWAIT_IF_ARMED => Trapped::MonitorWait,
        ExitCode::INVD | ExitCode::WBINVD => Trapped::CacheFlush,
        ExitCode::RDPMC => Trapped::ReadPerformanceCounter,
        ExitCode::RSM => Trapped::Resume,
        ExitCode::FERR_FREEZE => Trapped::LegacyFpuError,
        ExitCode::RDPRU | ExitCode::INVLPGB..=ExitCode::TLBSYNC => Trapped::Hidden,
        _ => return None,
    })
}

#[inline]
fn port_io(info: PortIoInfo) -> Exit {
    let width = match (info.byte(), info.word()) {
        (true, _) => AccessWidth::Byte,
        (_, true) => AccessWidth::Word,
        _ => AccessWidth::Dword,
    };
    Exit::PortIo(PortIo {
        port: info.port(),
        width,
        is_input: info.is_input(),
        is_string: info.is_string(),
    })
}

#[inline]
fn nested_fault(info: NestedFaultInfo, address: u64) -> Exit {
    Exit::NestedPageFault(NestedPageFault {
        address: GuestPhysAddr::new(address),
        is_write: info.write(),
        is_fetch: info.fetch(),
        in_page_walk: info.in_page_walk(),
    })
}

/// Of the sources the hardware tells IRET and JMP; a gate shows by the event that led there (AMD
/// APM vol. 2, 15.14.1).
fn task_switch(info1: u64, info2: TaskSwitchInfo, by_gate: bool) -> Exit {
    let source = match () {
        () if info2.is_return() => TaskSwitchSource::Return,
        () if info2.is_jump() => TaskSwitchSource::Jump,
        () if by_gate => TaskSwitchSource::Gate,
        () => TaskSwitchSource::Call,
    };
    Exit::TaskSwitch(TaskSwitch {
        selector: info1 as u16,
        source,
        error_code: (source == TaskSwitchSource::Gate && info2.has_error_code())
            .then_some(info2.error_code()),
    })
}

const fn pushes_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

fn exception(vector: u8, error_code: u64, fault_address: u64) -> Exception {
    Exception {
        vector: Vector(vector),
        error_code: pushes_error_code(vector).then_some(error_code as u32),
        fault_address: (vector == PAGE_FAULT).then_some(fault_address),
    }
}

/// The event whose delivery an exit cut short. Software interrupts and exceptions give none:
/// RIP is still on their instruction, which is executed again.
pub fn interrupted_event(info: EventInfo, cr2: u64) -> Option<Event> {
    if !info.valid() {
        return None;
    }
    match info.kind() {
        event_kind::INTERRUPT => Some(Event::Interrupt(Vector(info.vector()))),
        event_kind::NMI => Some(Event::Nmi),
        event_kind::EXCEPTION if !SOFTWARE_EXCEPTIONS.contains(&info.vector()) => {
            let error_code = info.has_error_code().then_some(info.error_code());
            let fault_address = (info.vector() == PAGE_FAULT).then_some(cr2);
            let vector = Vector(info.vector());
            Some(Event::Exception(Exception { vector, error_code, fault_address }))
        }
        _ => None,
    }
}

/// The encoding of an event to inject.
pub fn injection(event: Event) -> EventInfo {
    let info = EventInfo::new().with_valid(true);
    match event {
        Event::Interrupt(vector) => info.with_kind(event_kind::INTERRUPT).with_vector(vector.0),
        Event::Nmi => info.with_kind(event_kind::NMI).with_vector(2),
        Event::Exception(exception) => info
            .with_kind(event_kind::EXCEPTION)
            .with_vector(exception.vector.0)
            .with_has_error_code(exception.error_code.is_some())
            .with_error_code(exception.error_code.unwrap_or(0)),
        Event::SoftwareInterrupt { vector, .. } => {
            info.with_kind(event_kind::SOFTWARE).with_vector(vector.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(exit_code: u64, exit_info1: u64, exit_info2: u64) -> Exit {
        // SAFETY: the control area is integers and plain bit fields, for which zero is valid.
        let mut control: ControlArea = unsafe { core::mem::zeroed() };
        control.exit_code = exit_code;
        control.exit_info1 = exit_info1;
        control.exit_info2 = exit_info2;
        exit(&control)
    }

    #[test]
    fn decodes_port_io() {
        let info = PortIoInfo::new().with_port(0x3F8).with_is_input(true).with_word(true);
        let expected =
            PortIo { port: 0x3F8, width: AccessWidth::Word, is_input: true, is_string: false };
        assert_eq!(exit_of(0x7B, info.into_bits(), 0), Exit::PortIo(expected));
    }

    #[test]
    fn decodes_faults() {
        let fault = NestedPageFault {
            address: GuestPhysAddr::new(0xFEE0_0300),
            is_write: true,
            is_fetch: false,
            in_page_walk: false,
        };
        assert_eq!(exit_of(0x400, 6 | 1 << 32, 0xFEE0_0300), Exit::NestedPageFault(fault));
        assert_eq!(exit_of(0x51, 0, 0), Exit::Exception(Exception::ALIGNMENT_CHECK));
        let page_fault = Exit::PageFault { address: 0x1234, error_code: 7 };
        assert_eq!(exit_of(0x4E, 7, 0x1234), page_fault);
        assert_eq!(exit_of(0x79, 0, 0), Exit::InvalidatePage { address: None });
        assert_eq!(
            exit_of(0x14, 0, 0),
            Exit::ControlRegister(ControlRegisterAccess::Write { register: 4, source: None })
        );
        assert_eq!(exit_of(0x9999, 0, 0), Exit::Unknown(0x9999));
        for code in [u64::MAX, 0xFFFF_FFFF] {
            assert!(ExitCode::is_invalid(code));
        }
        assert_eq!(exit_of(0x80, 0, 0), Exit::Instruction(Trapped::Virtualization));
    }

    #[test]
    fn decodes_task_switches() {
        let expected = |source, error_code| {
            Exit::TaskSwitch(TaskSwitch { selector: 0x38, source, error_code })
        };
        let switch = |info2, interrupted: Option<Event>| {
            // SAFETY: the control area is integers and plain bit fields, for which zero is valid.
            let mut control: ControlArea = unsafe { core::mem::zeroed() };
            control.exit_code = ExitCode::TASK_SWITCH;
            (control.exit_info1, control.exit_info2) = (0x38, info2);
            control.exit_interrupt_info = interrupted.map_or(EventInfo::new(), injection);
            exit(&control)
        };
        let interrupt = Some(Event::Interrupt(Vector(0x30)));
        let fault = Some(Event::Exception(Exception::GENERAL_PROTECTION));
        assert_eq!(switch(0, None), expected(TaskSwitchSource::Call, None));
        assert_eq!(switch(1 << 36, None), expected(TaskSwitchSource::Return, None));
        assert_eq!(switch(1 << 38, None), expected(TaskSwitchSource::Jump, None));
        assert_eq!(switch(1 << 48, interrupt), expected(TaskSwitchSource::Gate, None));
        let with_code = expected(TaskSwitchSource::Gate, Some(0x12));
        assert_eq!(switch(1 << 44 | 0x12, fault), with_code);
    }

    #[test]
    fn events_survive_the_round_trip() {
        let fault = Exception::page_fault(0x1234, 6);
        for event in [Event::Interrupt(Vector(0x30)), Event::Nmi, Event::Exception(fault)] {
            assert_eq!(interrupted_event(injection(event), 0x1234), Some(event));
        }
        assert_eq!(interrupted_event(EventInfo::new(), 0), None);
    }

    #[test]
    fn software_events_are_executed_again() {
        let soft = Event::SoftwareInterrupt { vector: Vector(0x80), length: 2 };
        assert_eq!(interrupted_event(injection(soft), 0), None);
        let int3 = injection(Event::Exception(Exception {
            vector: Vector(3),
            error_code: None,
            fault_address: None,
        }));
        assert_eq!(interrupted_event(int3, 0), None);
    }
}
