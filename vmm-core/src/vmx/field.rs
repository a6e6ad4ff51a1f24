// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMCS fields that the library uses, numbered densely so that a bit mask can name a set
//! of them (encodings: Intel SDM vol. 3, appendix B).

use x86::vmx::vmcs::{control, guest, host, ro};

use crate::state::SegmentRegister;

/// Who changes a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The VMM alone: the value outlives exits.
    Kept,
    /// The guest too, while it runs.
    Guest,
    /// The CPU, at each exit; read-only.
    Exit,
}

macro_rules! fields {
    ($($class:ident { $($name:ident = $encoding:expr,)* })*) => {
        /// A field.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Field {
            $($($name,)*)*
        }

        impl Field {
            /// All fields, by number.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)*)*];

            /// What VMREAD and VMWRITE call it.
            pub const fn encoding(self) -> u32 {
                match self {
                    $($(Self::$name => $encoding,)*)*
                }
            }

            /// Who changes it.
            pub const fn class(self) -> Class {
                match self {
                    $($(Self::$name => Class::$class,)*)*
                }
            }
        }
    };
}

fields! {
    Kept {
        Vpid = control::VPID,
        IoBitmapA = control::IO_BITMAP_A_ADDR_FULL,
        IoBitmapB = control::IO_BITMAP_B_ADDR_FULL,
        MsrBitmap = control::MSR_BITMAPS_ADDR_FULL,
        TscOffset = control::TSC_OFFSET_FULL,
        VirtualApic = control::VIRT_APIC_ADDR_FULL,
        ApicAccessPage = control::APIC_ACCESS_ADDR_FULL,
        EoiExit0 = control::EOI_EXIT0_FULL,
        EoiExit1 = control::EOI_EXIT1_FULL,
        EoiExit2 = control::EOI_EXIT2_FULL,
        EoiExit3 = control::EOI_EXIT3_FULL,
        EptPointer = control::EPTP_FULL,
        EnclsBitmap = control::ENCLS_EXITING_BITMAP_FULL,
        LinkPointer = guest::LINK_PTR_FULL,
        PinControls = control::PINBASED_EXEC_CONTROLS,
        PrimaryControls = control::PRIMARY_PROCBASED_EXEC_CONTROLS,
        SecondaryControls = control::SECONDARY_PROCBASED_EXEC_CONTROLS,
        ExceptionBitmap = control::EXCEPTION_BITMAP,
        PageFaultMask = control::PAGE_FAULT_ERR_CODE_MASK,
        PageFaultMatch = control::PAGE_FAULT_ERR_CODE_MATCH,
        Cr3TargetCount = control::CR3_TARGET_COUNT,
        ExitControls = control::VMEXIT_CONTROLS,
        ExitMsrStoreCount = control::VMEXIT_MSR_STORE_COUNT,
        ExitMsrLoadCount = control::VMEXIT_MSR_LOAD_COUNT,
        ExitMsrLoadArea = control::VMEXIT_MSR_LOAD_ADDR_FULL,
        EntryControls = control::VMENTRY_CONTROLS,
        EntryMsrLoadCount = control::VMENTRY_MSR_LOAD_COUNT,
        EntryMsrLoadArea = control::VMENTRY_MSR_LOAD_ADDR_FULL,
        EntryEvent = control::VMENTRY_INTERRUPTION_INFO_FIELD,
        EntryErrorCode = control::VMENTRY_EXCEPTION_ERR_CODE,
        EntryInstructionLength = control::VMENTRY_INSTRUCTION_LEN,
        TprThreshold = control::TPR_THRESHOLD,
        PauseLoopGap = control::PLE_GAP,
        PauseLoopWindow = control::PLE_WINDOW,
        Cr0Mask = control::CR0_GUEST_HOST_MASK,
        Cr4Mask = control::CR4_GUEST_HOST_MASK,
        Cr0Shadow = control::CR0_READ_SHADOW,
        Cr4Shadow = control::CR4_READ_SHADOW,
        GuestCr0 = guest::CR0,
        GuestCr4 = guest::CR4,
        GuestDebugCtl = guest::IA32_DEBUGCTL_FULL,
        GuestPat = guest::IA32_PAT_FULL,
        GuestEfer = guest::IA32_EFER_FULL,
        GuestActivity = guest::ACTIVITY_STATE,
        // The CPU changes these two at exits, to values that are known without reading them.
        InterruptStatus = guest::INTERRUPT_STATUS,
        PreemptionTimer = guest::VMX_PREEMPTION_TIMER_VALUE,
        HostEs = host::ES_SELECTOR,
        HostCs = host::CS_SELECTOR,
        HostSs = host::SS_SELECTOR,
        HostDs = host::DS_SELECTOR,
        HostFs = host::FS_SELECTOR,
        HostGs = host::GS_SELECTOR,
        HostTr = host::TR_SELECTOR,
        HostPat = host::IA32_PAT_FULL,
        HostEfer = host::IA32_EFER_FULL,
        HostSysenterCs = host::IA32_SYSENTER_CS,
        HostCr0 = host::CR0,
        HostCr3 = host::CR3,
        HostCr4 = host::CR4,
        HostFsBase = host::FS_BASE,
        HostGsBase = host::GS_BASE,
        HostTrBase = host::TR_BASE,
        HostGdtrBase = host::GDTR_BASE,
        HostIdtrBase = host::IDTR_BASE,
        HostSysenterEsp = host::IA32_SYSENTER_ESP,
        HostSysenterEip = host::IA32_SYSENTER_EIP,
        HostRip = host::RIP,
    }
    Guest {
        EsSelector = guest::ES_SELECTOR,
        CsSelector = guest::CS_SELECTOR,
        SsSelector = guest::SS_SELECTOR,
        DsSelector = guest::DS_SELECTOR,
        FsSelector = guest::FS_SELECTOR,
        GsSelector = guest::GS_SELECTOR,
        LdtrSelector = guest::LDTR_SELECTOR,
        TrSelector = guest::TR_SELECTOR,
        EsBase = guest::ES_BASE,
        CsBase = guest::CS_BASE,
        SsBase = guest::SS_BASE,
        DsBase = guest::DS_BASE,
        FsBase = guest::FS_BASE,
        GsBase = guest::GS_BASE,
        LdtrBase = guest::LDTR_BASE,
        TrBase = guest::TR_BASE,
        EsLimit = guest::ES_LIMIT,
        CsLimit = guest::CS_LIMIT,
        SsLimit = guest::SS_LIMIT,
        DsLimit = guest::DS_LIMIT,
        FsLimit = guest::FS_LIMIT,
        GsLimit = guest::GS_LIMIT,
        LdtrLimit = guest::LDTR_LIMIT,
        TrLimit = guest::TR_LIMIT,
        EsRights = guest::ES_ACCESS_RIGHTS,
        CsRights = guest::CS_ACCESS_RIGHTS,
        SsRights = guest::SS_ACCESS_RIGHTS,
        DsRights = guest::DS_ACCESS_RIGHTS,
        FsRights = guest::FS_ACCESS_RIGHTS,
        GsRights = guest::GS_ACCESS_RIGHTS,
        LdtrRights = guest::LDTR_ACCESS_RIGHTS,
        TrRights = guest::TR_ACCESS_RIGHTS,
        GdtrBase = guest::GDTR_BASE,
        IdtrBase = guest::IDTR_BASE,
        GdtrLimit = guest::GDTR_LIMIT,
        IdtrLimit = guest::IDTR_LIMIT,
        GuestCr3 = guest::CR3,
        Pdpte0 = guest::PDPTE0_FULL,
        Pdpte1 = guest::PDPTE1_FULL,
        Pdpte2 = guest::PDPTE2_FULL,
        Pdpte3 = guest::PDPTE3_FULL,
        GuestDr7 = guest::DR7,
        GuestRsp = guest::RSP,
        GuestRip = guest::RIP,
        GuestRflags = guest::RFLAGS,
        SysenterCs = guest::IA32_SYSENTER_CS,
        SysenterEsp = guest::IA32_SYSENTER_ESP,
        SysenterEip = guest::IA32_SYSENTER_EIP,
        Interruptibility = guest::INTERRUPTIBILITY_STATE,
        PendingDebug = guest::PENDING_DBG_EXCEPTIONS,
    }
    Exit {
        ExitReason = ro::EXIT_REASON,
        ExitQualification = ro::EXIT_QUALIFICATION,
        ExitEvent = ro::VMEXIT_INTERRUPTION_INFO,
        ExitErrorCode = ro::VMEXIT_INTERRUPTION_ERR_CODE,
        VectoringEvent = ro::IDT_VECTORING_INFO,
        VectoringErrorCode = ro::IDT_VECTORING_ERR_CODE,
        InstructionLength = ro::VMEXIT_INSTRUCTION_LEN,
        InstructionError = ro::VM_INSTRUCTION_ERROR,
        GuestPhysicalAddress = ro::GUEST_PHYSICAL_ADDR_FULL,
    }
}

/// A set of fields.
pub type FieldSet = u128;

const _: () = assert!(Field::ALL.len() <= FieldSet::BITS as usize);

impl Field {
    /// The set with this field alone.
    pub const fn bit(self) -> FieldSet {
        1 << self as u8
    }

    /// All fields of a class.
    pub const fn set_of(class: Class) -> FieldSet {
        let mut set = 0;
        let mut index = 0;
        while index < Self::ALL.len() {
            let field = Self::ALL[index];
            if field.class() as u8 == class as u8 {
                set |= field.bit();
            }
            index += 1;
        }
        set
    }
}

/// The fields of one segment register.
#[derive(Clone, Copy)]
pub struct SegmentFields {
    pub selector: Field,
    pub base: Field,
    pub limit: Field,
    pub rights: Field,
}

impl SegmentFields {
    /// Those of `register`.
    pub const fn of(register: SegmentRegister) -> Self {
        macro_rules! of {
            ($selector:ident, $base:ident, $limit:ident, $rights:ident) => {
                Self {
                    selector: Field::$selector,
                    base: Field::$base,
                    limit: Field::$limit,
                    rights: Field::$rights,
                }
            };
        }
        match register {
            SegmentRegister::Es => of!(EsSelector, EsBase, EsLimit, EsRights),
            SegmentRegister::Cs => of!(CsSelector, CsBase, CsLimit, CsRights),
            SegmentRegister::Ss => of!(SsSelector, SsBase, SsLimit, SsRights),
            SegmentRegister::Ds => of!(DsSelector, DsBase, DsLimit, DsRights),
            SegmentRegister::Fs => of!(FsSelector, FsBase, FsLimit, FsRights),
            SegmentRegister::Gs => of!(GsSelector, GsBase, GsLimit, GsRights),
            SegmentRegister::Ldtr => of!(LdtrSelector, LdtrBase, LdtrLimit, LdtrRights),
            SegmentRegister::Tr => of!(TrSelector, TrBase, TrLimit, TrRights),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_and_encodings_differ() {
        for (number, field) in Field::ALL.iter().enumerate() {
            assert_eq!(*field as usize, number);
            let same = Field::ALL.iter().filter(|other| other.encoding() == field.encoding());
            assert_eq!(same.count(), 1, "{field:?}");
        }
    }

    #[test]
    fn classes_divide_the_fields() {
        let classes = [Class::Kept, Class::Guest, Class::Exit].map(Field::set_of);
        assert_eq!(
            classes.iter().map(|set| set.count_ones()).sum::<u32>() as usize,
            Field::ALL.len()
        );
        // Bits 11:10 of an encoding are 1 for the read-only fields (SDM vol. 3, appendix B).
        for field in Field::ALL {
            assert_eq!(field.encoding() >> 10 & 3 == 1, field.class() == Class::Exit, "{field:?}");
        }
    }
}
