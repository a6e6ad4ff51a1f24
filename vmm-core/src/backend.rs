// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seam between the neutral library and a vendor's virtualization hardware.
//!
//! A backend enters guests, holds their hardware state, and turns each exit into a neutral
//! [`Exit`]. It knows no device and no policy.

use alloc::{string::String, vec::Vec};
use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use host_iface::{Host, HostError, HostPhysAddr, Tsc};

use crate::{
    BriefExit, Event, Exit, GuestPhysAddr,
    apic::{ApicMode, InterruptState},
    cpuid::Vendor,
    debug, host_registers,
    paging::NestedEntries,
    state::{
        ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentRegister, cr4,
        efer,
    },
};

/// Why a CPU cannot run guests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unsupported {
    /// The CPU has no virtualization extension that the library knows.
    NoExtension,
    /// The extension is there, but firmware has locked it off; says where.
    LockedByFirmware(&'static str),
    /// A feature that is needed is missing.
    MissingFeature(&'static str),
    /// The CPU refused to enter guests; says which step.
    Refused(&'static str),
    /// The CPU is known to fail guests; says how, and what to do.
    Defective(&'static str),
    /// The host could not give what is needed.
    Host(HostError),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoExtension => {
                write!(
                    f,
                    "this CPU offers neither AMD SVM (CPUID 8000_0001 ECX bit 2) nor Intel \
                           VT-x (CPUID 1 ECX bit 5); use a CPU or emulator model that has one"
                )
            }
            Self::LockedByFirmware(what) => {
                write!(
                    f,
                    "firmware has disabled virtualization ({what}); enable it in the \
                           firmware's setup"
                )
            }
            Self::MissingFeature(what) => write!(f, "this CPU lacks {what}, which is needed"),
            Self::Refused(what) => write!(f, "this CPU refused {what}"),
            Self::Defective(why) => write!(f, "{why}"),
            Self::Host(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for Unsupported {}

impl From<HostError> for Unsupported {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

/// How the memory of a VM is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    /// Through the guest's own tables and then through nested ones, with this root.
    Nested(HostPhysAddr),
    /// Through shadow tables alone, whose root is
    /// [set](VcpuBackend::set_shadow_root) before the first entry. The CPU runs with paging
    /// always, and everything exits that the guest does to its own.
    Shadow,
}

/// What a vCPU of a VM is given at its creation.
#[derive(Clone, Copy)]
pub struct VcpuSetup {
    /// How the VM's memory is reached.
    pub translation: Translation,
    /// Added to the host's time-stamp counter to give the guest's, modulo 2^64.
    pub tsc_offset: u64,
    /// What the hardware may do of the local APIC's work.
    pub apic: ApicSetup,
    /// The VM has other vCPUs. The guest may wait for them in a loop of PAUSEs, and exits when it
    /// waits long, if the hardware can tell.
    pub has_siblings: bool,
}

/// What the hardware may do of a local APIC's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicSetup {
    /// Nothing but to hold the task priority that CR8 shows.
    Emulated,
    /// All that it can.
    Hardware {
        /// For xAPIC mode, if the VM has it.
        window: Option<ApicWindow>,
    },
}

/// A place in guest-physical space where the hardware finds accesses to the local APIC's
/// registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicWindow {
    /// Root of nested page tables that map what those of the VM do, and the page at the
    /// address of the registers besides.
    pub nested_root: HostPhysAddr,
    /// The page that they map there. It holds nothing.
    pub page: HostPhysAddr,
}

/// What the hardware does of a local APIC's work while the guest runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ApicRole {
    /// It delivers interrupts: those of [`VcpuBackend::load_interrupts`] need no event to
    /// inject and no window.
    pub delivers: bool,
    /// It answers reads of registers, from copies that [`VcpuBackend::set_apic_register`]
    /// gives it.
    pub shows_registers: bool,
}

/// A page that a backend needs in the guest-physical space of every VM, for the CPU alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HardwarePage {
    /// Where the CPU looks for it; no memory and no device may be there.
    pub guest: GuestPhysAddr,
    /// Where it is.
    pub host: HostPhysAddr,
}

/// How far the guest is from taking an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interruptibility {
    /// RFLAGS.IF.
    pub interrupts_enabled: bool,
    /// The instruction after STI or MOV SS has not been executed.
    pub in_shadow: bool,
    /// An NMI handler runs that has not executed IRET.
    pub nmi_blocked: bool,
}

/// The last look before a guest is entered.
///
/// The host's interrupt handlers for kicks and for its timer leave no trace that the library
/// could see. So a backend asks the gate with interrupts held: whatever happened before shows
/// in the attention flag or in the time, and whatever happens after ends the entry at once.
pub struct EntryGate<'a> {
    host: &'static dyn Host,
    attention: &'a AtomicBool,
    deadline: Option<Tsc>,
    hardware_deadline: Option<Tsc>,
    left_at: Tsc,
    asked_at: Tsc,
}

impl<'a> EntryGate<'a> {
    /// A gate that stays closed when `attention` is set or `deadline` has come.
    #[inline]
    pub fn new(host: &'static dyn Host, attention: &'a AtomicBool, deadline: Option<Tsc>) -> Self {
        let hardware_deadline = None;
        Self { host, attention, deadline, hardware_deadline, left_at: Tsc(0), asked_at: Tsc(0) }
    }

    /// The same gate for hardware that [ends entries](VcpuBackend::ends_at_deadline) by itself:
    /// it does so at `deadline`. The guest was last left, or the gate found closed, at
    /// `left_at`.
    #[inline]
    #[must_use]
    pub fn with_hardware_deadline(self, deadline: Option<Tsc>, left_at: Tsc) -> Self {
        Self { hardware_deadline: deadline, left_at, ..self }
    }

    /// The moment at which the hardware has to end the entry, if no timer of the host does.
    pub fn hardware_deadline(&self) -> Option<Tsc> {
        self.hardware_deadline
    }

    /// Ticks from the last exit, or the last time that the gate was asked, to this time.
    pub fn ticks_outside(&self) -> u64 {
        self.asked_at.0.saturating_sub(self.left_at.0)
    }

    /// True if the guest may be entered.
    #[inline]
    pub fn opens(&mut self) -> bool {
        self.asked_at = self.host.tsc();
        !self.attention.load(Ordering::SeqCst)
            && self.deadline.is_none_or(|deadline| self.asked_at < deadline)
    }

    /// When the gate was last asked.
    #[inline]
    pub fn asked_at(&self) -> Tsc {
        self.asked_at
    }
}

/// A vendor's virtualization extension on one machine.
///
/// One value serves all VMs of the machine; it is created once, after probing.
pub trait Backend: Send + Sync + Sized + 'static {
    /// Hardware state of one vCPU.
    type Vcpu: VcpuBackend;

    /// Format of its nested page tables.
    type Entries: NestedEntries + Send + Sync + 'static;

    /// Name for reports: `svm` or `vmx`.
    const NAME: &'static str;

    /// Manufacturer of the CPU model that guests see.
    const VENDOR: Vendor;

    /// Looks at the calling CPU and takes what it offers.
    ///
    /// # Errors
    /// Why the CPU cannot run guests.
    fn probe(host: &'static dyn Host) -> Result<Self, Unsupported>;

    /// Names of the optional features that were found and are used.
    fn capabilities(&self) -> Vec<String>;

    /// Does the CPU have nested paging? If not, shadow paging is all there is.
    fn has_nested_paging(&self) -> bool;

    /// Can nested page tables use 1 GiB pages?
    fn has_huge_pages(&self) -> bool;

    /// Can the hardware make use of an [`ApicWindow`]?
    fn wants_apic_window(&self) -> bool {
        false
    }

    /// A page that nested page tables have to map, readable only.
    fn hardware_page(&self) -> Option<HardwarePage> {
        None
    }

    /// Makes a vCPU in the reset state of its vendor.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    fn create_vcpu(&self, setup: VcpuSetup) -> Result<Self::Vcpu, HostError>;

    /// Prepares the calling CPU for guests; balanced by [`Backend::leave_cpu`] on the same
    /// CPU.
    ///
    /// # Errors
    /// Why this CPU cannot run guests.
    fn enter_cpu(&self) -> Result<(), Unsupported>;

    /// Returns the calling CPU to the state it was in before the matching
    /// [`Backend::enter_cpu`].
    fn leave_cpu(&self);
}

/// MSRs that live in the hardware state of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub enum HardwareMsr {
    Star,
    Lstar,
    Cstar,
    Sfmask,
    KernelGsBase,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    Pat,
    DebugCtl,
}

/// Hardware state of one vCPU.
pub trait VcpuBackend: Send {
    /// The hardware keeps the page-directory pointers of PAE paging, instead of reading them
    /// when it needs them.
    const KEEPS_PAGE_DIRECTORY_POINTERS: bool;

    /// The backend counts [accesses](Self::control_accesses) to the control block.
    const COUNTS_ACCESSES: bool = false;

    /// The hardware may do a part of the local APIC's work: an [`ApicRole`] other than the default.
    const HAS_APIC_ROLES: bool = true;

    /// Binds the vCPU to the calling CPU, which it is to run on next. False, and nothing is
    /// done, if that CPU was not prepared by [`Backend::enter_cpu`].
    #[must_use]
    fn load(&mut self) -> bool;

    /// Takes the vCPU's state off the calling CPU, which ran it last, and leaves nothing of
    /// the guest there.
    fn put(&mut self);

    /// False if the CPU cannot execute the guest in its present mode or with its present
    /// segments: then the guest is not entered, but interpreted until it can be.
    #[inline]
    fn can_enter(&self) -> bool {
        true
    }

    /// Enters the guest, if `gate` opens at the last moment, when physical interrupts are
    /// held pending already; returns when the guest exits. Called between
    /// [`load`](Self::load) and [`put`](Self::put), with interrupts enabled.
    fn run(&mut self, gate: &mut EntryGate<'_>) -> Exit;

    /// [`run`](Self::run) where it can be made shorter. The last entry ended with an instruction
    /// that was completed since: there is no event to deliver and no interrupt shadow, and but for
    /// general-purpose registers, RIP, RFLAGS, the task priority and [MSRs](Self::set_msr) all is
    /// as it was at that exit. Called only if [`can_resume`](Self::can_resume) says so.
    ///
    /// Returns the kind of the exit if it is brief, and did not cut short the delivery of an
    /// event. Sets `exit` if there is more to tell than that.
    #[inline]
    fn resume(&mut self, gate: &mut EntryGate<'_>, exit: &mut Exit) -> Option<BriefExit> {
        *exit = self.run(gate);
        BriefExit::of(exit).filter(|_| !self.has_interrupted_event())
    }

    /// False if the next entry takes preparations that only [`run`](Self::run) makes.
    #[inline]
    fn can_resume(&self) -> bool {
        true
    }

    /// Reads a general-purpose register.
    fn gpr(&self, register: Gpr) -> u64;
    /// Writes all 64 bits of a general-purpose register.
    fn set_gpr(&mut self, register: Gpr, value: u64);
    /// Instruction pointer.
    fn rip(&self) -> u64;
    /// Sets the instruction pointer.
    fn set_rip(&mut self, value: u64);
    /// Flags.
    fn rflags(&self) -> u64;
    /// Sets the flags.
    fn set_rflags(&mut self, value: u64);
    /// Reads a segment register.
    fn segment(&self, register: SegmentRegister) -> Segment;
    /// Writes a segment register.
    fn set_segment(&mut self, register: SegmentRegister, segment: Segment);
    /// GDTR and IDTR.
    fn descriptor_tables(&self) -> (DescriptorTable, DescriptorTable);
    /// Sets GDTR and IDTR.
    fn set_descriptor_tables(&mut self, gdtr: DescriptorTable, idtr: DescriptorTable);
    /// The control registers as the guest sees them.
    fn control_registers(&self) -> ControlRegisters;
    /// True if the guest executes 64-bit code.
    #[inline]
    fn is_64_bit_code(&self) -> bool {
        self.control_registers().efer & efer::LMA != 0
            && self.segment(SegmentRegister::Cs).attributes.long()
    }
    /// CR3 as the guest sees it, if it executes 64-bit code on page tables of four levels.
    #[inline]
    fn cr3_of_64_bit_code(&self) -> Option<u64> {
        let has_four_levels = self.cr4() & cr4::LA57 == 0;
        (has_four_levels && self.is_64_bit_code()).then(|| self.control_registers().cr3)
    }
    /// Sets all control registers to values that were checked before.
    fn set_control_registers(&mut self, value: ControlRegisters);
    /// The entries that PAE paging takes from the table at CR3 when control registers are
    /// loaded (Intel SDM vol. 3, 4.4.1), for hardware that keeps them.
    fn set_page_directory_pointers(&mut self, _: [u64; 4]) {}
    /// Those entries while the guest uses PAE paging; `None` where the hardware reads them from
    /// memory on each walk.
    fn page_directory_pointers(&self) -> Option<[u64; 4]> {
        None
    }
    /// With shadow paging: sets the root of the tables that the CPU walks. They have four levels
    /// if the guest is in long mode, and else are PAE tables with a root below 4 GiB. Another
    /// root than before makes the CPU drop the translations of the old one.
    fn set_shadow_root(&mut self, root: HostPhysAddr);
    /// CR4 as the guest sees it, at no cost.
    fn cr4(&self) -> u64;
    /// Current privilege level.
    fn cpl(&self) -> u8;
    /// Debug registers 6 and 7.
    fn debug_status_control(&self) -> (u64, u64);
    /// Sets debug registers 6 and 7.
    fn set_debug_status_control(&mut self, dr6: u64, dr7: u64);
    /// Debug register `number`, 0 to 3. Called between [`load`](Self::load) and
    /// [`put`](Self::put).
    fn breakpoint_address(&self, number: u8) -> u64 {
        debug::loaded_address(number)
    }
    /// Sets debug register `number`, 0 to 3. Called between [`load`](Self::load) and
    /// [`put`](Self::put).
    fn set_breakpoint_address(&mut self, number: u8, address: u64) {
        debug::set_loaded_address(number, address);
    }
    /// Reads an MSR that the hardware state holds.
    fn msr(&self, msr: HardwareMsr) -> u64;
    /// Writes an MSR that the hardware state holds; the value was checked before.
    fn set_msr(&mut self, msr: HardwareMsr, value: u64);
    /// XCR0 as the guest set it.
    fn xcr0(&self) -> u64;
    /// Sets XCR0 to a value that was checked before; takes effect at once.
    fn set_xcr0(&mut self, value: u64);
    /// IA32_TSC_AUX.
    fn tsc_aux(&self) -> u32;
    /// Sets IA32_TSC_AUX; takes effect at once.
    fn set_tsc_aux(&mut self, value: u32);
    /// Difference from the host's to the guest's time-stamp counter.
    fn tsc_offset(&self) -> u64;
    /// Sets that difference.
    fn set_tsc_offset(&mut self, offset: u64);
    /// Task priority register, as the guest last set it by CR8 or otherwise.
    fn task_priority(&self) -> u8;
    /// False if [`task_priority`](Self::task_priority) gives what was last
    /// [set](Self::set_task_priority), for backends that find that out at less cost.
    #[inline]
    fn may_have_new_task_priority(&self) -> bool {
        true
    }
    /// Sets the task priority register, whose class the guest reads from CR8.
    fn set_task_priority(&mut self, priority: u8);

    /// Tells how the guest reaches its local APIC from the next entry on, and whether that
    /// delivers interrupts; what the hardware does of its work then. For hardware that does
    /// nothing of it, this and the four that follow need not be supplied.
    fn set_apic_mode(&mut self, _mode: ApicMode, _delivers: bool) -> ApicRole {
        ApicRole::default()
    }
    /// Hands over interrupts for the hardware to deliver from the next entry on.
    fn load_interrupts(&mut self, _state: &InterruptState) {}
    /// The interrupts as the guest and the hardware left them at the last exit.
    fn interrupts(&self) -> InterruptState {
        InterruptState::default()
    }
    /// The hardware's copy of the local APIC's register at `offset` from the start of its page.
    fn apic_register(&self, _offset: u16) -> u32 {
        0
    }
    /// Sets that copy.
    fn set_apic_register(&mut self, _offset: u16, _value: u32) {}

    /// How far the guest is from taking an interrupt.
    fn interruptibility(&self) -> Interruptibility;
    /// Ends an interrupt shadow, because the VMM completed the instruction under it.
    fn clear_interrupt_shadow(&mut self);
    /// Begins an interrupt shadow, because the VMM completed an instruction that casts one.
    fn begin_interrupt_shadow(&mut self, shadow: InterruptShadow);
    /// Delivers `event` at the next entry; at most one is given for each.
    fn inject(&mut self, event: Event);
    /// True if the last exit cut short the delivery of an event, which was not taken yet.
    fn has_interrupted_event(&self) -> bool;
    /// Takes that event.
    fn take_interrupted_event(&mut self) -> Option<Event>;
    /// True if that event may be an older one, where the last exit in truth came during the
    /// delivery of a software interrupt, whose instruction is executed again.
    fn may_have_interrupted_software(&self) -> bool {
        false
    }
    /// Asks for, or ends asking for, [`Exit::InterruptWindow`].
    fn request_interrupt_window(&mut self, wanted: bool);
    /// Begins or ends the blocking of NMIs other than by delivering one and by the guest's
    /// IRET.
    fn set_nmi_blocking(&mut self, blocked: bool);
    /// Forgets debug exceptions that wait for the end of an instruction, as INIT does.
    fn drop_pending_debug_exceptions(&mut self) {}
    /// Asks for, or ends asking for, [`Exit::NmiWindow`].
    fn request_nmi_window(&mut self, wanted: bool);
    /// Asks for an exit when the guest's task priority class falls below `class`, before the
    /// guest executes another instruction; none ends asking. Called after
    /// [`set_task_priority`](Self::set_task_priority) and
    /// [`request_interrupt_window`](Self::request_interrupt_window). There may be other exits
    /// for it, so long as none is missing.
    fn watch_task_priority(&mut self, class: Option<u8>);
    /// True if an entry ends by itself, with [`Exit::Deadline`], at the moment that the
    /// [gate](EntryGate::hardware_deadline) names, so that it needs no timer of the host.
    fn ends_at_deadline(&self) -> bool {
        false
    }

    /// Address of the instruction after the one that exited, if the hardware told.
    fn next_rip(&self) -> Option<u64>;
    /// Bytes of the instruction that caused a page fault or nested page fault, if the hardware
    /// told.
    fn instruction_bytes(&self) -> Option<&[u8]>;
    /// Size of the control block and save areas, in bytes.
    fn control_bytes(&self) -> usize;
    /// Accesses to the control block by instructions of their own, up to the last entry; zero
    /// where it is ordinary memory.
    fn control_accesses(&self) -> u64 {
        0
    }
    /// Keeps earlier branches of the guest from steering later indirect branches.
    fn prediction_barrier(&mut self) {
        // SAFETY: called only where the host's CPUID says that the register is there.
        unsafe { host_registers::prediction_barrier() }
    }
    /// Says that the machine check for which the guest exited was dealt with: only then does the
    /// calling CPU survive another.
    fn end_machine_check(&mut self) {
        host_registers::end_machine_check();
    }
    /// Drops all cached translations of the guest before the next entry.
    fn flush_tlb(&mut self);
    /// Spoils the control block in the way that `fault` names, so that the next entry fails.
    /// False if the backend knows no such way.
    #[cfg(feature = "fault-injection")]
    #[must_use]
    fn spoil_entry(&mut self, fault: &str) -> bool;
}
