// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a CPU's VT-x offers (Intel SDM vol. 3, appendix A).

use alloc::{string::String, vec::Vec};

use bitfield_struct::bitfield;
use x86::{
    msr::{
        IA32_FEATURE_CONTROL, IA32_VMX_BASIC, IA32_VMX_CR0_FIXED0, IA32_VMX_CR0_FIXED1,
        IA32_VMX_CR4_FIXED0, IA32_VMX_CR4_FIXED1, IA32_VMX_ENTRY_CTLS, IA32_VMX_EPT_VPID_CAP,
        IA32_VMX_EXIT_CTLS, IA32_VMX_MISC, IA32_VMX_PINBASED_CTLS, IA32_VMX_PROCBASED_CTLS,
        IA32_VMX_PROCBASED_CTLS2, IA32_VMX_TRUE_ENTRY_CTLS, IA32_VMX_TRUE_EXIT_CTLS,
        IA32_VMX_TRUE_PINBASED_CTLS, IA32_VMX_TRUE_PROCBASED_CTLS, rdmsr,
    },
    vmx::vmcs::control::{EntryControls, PinbasedControls, PrimaryControls, SecondaryControls},
};

use super::{
    controls::{APIC_DELIVERY, Allowed, Controls},
    field::{Field, FieldSet},
};
use crate::{
    backend::{Translation, Unsupported, VcpuSetup},
    state::{cr0, cr4},
};

/// Bytes of a VMCS region on Bochs (2.7): a whole page. The regions of Intel's CPUs have 1024.
const BOCHS_REGION: u16 = 4096;
/// Revision identifier of nested KVM, whose regions have a page, too.
const KVM_REVISION: u32 = 0x11E5_7ED0;

/// IA32_VMX_BASIC (Intel SDM vol. 3, A.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct BasicInformation {
    /// Revision identifier of VMCS and VMXON regions.
    #[bits(31)]
    pub revision: u32,
    __: bool,
    /// Size of those regions in bytes; at most 4096.
    #[bits(13)]
    pub region_bytes: u16,
    #[bits(3)]
    __: u8,
    /// Regions have to lie below 4 GiB.
    pub narrow_addresses: bool,
    #[bits(6)]
    __: u8,
    /// The "true" capability MSRs exist.
    pub has_true_controls: bool,
    #[bits(8)]
    __: u8,
}

impl BasicInformation {
    fn is_bochs(self) -> bool {
        self.region_bytes() == BOCHS_REGION && self.revision() != KVM_REVISION
    }
}

/// IA32_VMX_EPT_VPID_CAP (Intel SDM vol. 3, A.10).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EptVpidCapabilities {
    /// Entries may allow execution alone.
    pub execute_only: bool,
    #[bits(5)]
    __: u8,
    /// Tables of four levels.
    pub four_levels: bool,
    #[bits(7)]
    __: u8,
    /// The tables themselves may be write-back.
    pub write_back: bool,
    __: bool,
    /// 2 MiB pages.
    pub large_pages: bool,
    /// 1 GiB pages.
    pub huge_pages: bool,
    #[bits(2)]
    __: u8,
    /// INVEPT.
    pub invept: bool,
    /// Accessed and dirty flags.
    pub accessed_dirty: bool,
    #[bits(3)]
    __: u8,
    /// INVEPT of one EPT pointer.
    pub invept_single: bool,
    /// INVEPT of all EPT pointers.
    pub invept_all: bool,
    #[bits(5)]
    __: u8,
    /// INVVPID.
    pub invvpid: bool,
    #[bits(7)]
    __: u8,
    /// INVVPID of one address.
    pub invvpid_address: bool,
    /// INVVPID of one VPID.
    pub invvpid_single: bool,
    /// INVVPID of all VPIDs.
    pub invvpid_all: bool,
    #[bits(21)]
    __: u32,
}

impl EptVpidCapabilities {
    /// True if translations under a VPID can be dropped.
    pub const fn has_vpid_invalidation(self) -> bool {
        self.invvpid() && (self.invvpid_single() || self.invvpid_all())
    }
}

/// Bits of IA32_FEATURE_CONTROL (Intel SDM vol. 3, 23.7).
pub mod feature_control {
    pub const LOCKED: u64 = 1 << 0;
    pub const VMX_OUTSIDE_SMX: u64 = 1 << 2;
}

/// The capability MSRs, as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CapabilityMsrs {
    /// ECX of CPUID leaf 1.
    pub cpuid_ecx: u32,
    /// EDX of CPUID leaf 0x8000_0001.
    pub cpuid_extended_edx: u32,
    /// Bits of a physical address.
    pub physical_address_bits: u8,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// IA32_VMX_BASIC.
    pub basic: BasicInformation,
    /// Pin-based controls.
    pub pin: Allowed,
    /// Primary processor-based controls.
    pub primary: Allowed,
    /// Secondary processor-based controls.
    pub secondary: Allowed,
    /// VM-exit controls.
    pub exit: Allowed,
    /// VM-entry controls.
    pub entry: Allowed,
    /// CR0 bits that have to be one.
    pub cr0_fixed0: u64,
    /// CR0 bits that may be one.
    pub cr0_fixed1: u64,
    /// CR4 bits that have to be one.
    pub cr4_fixed0: u64,
    /// CR4 bits that may be one.
    pub cr4_fixed1: u64,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept: EptVpidCapabilities,
    /// IA32_VMX_MISC.
    pub misc: u64,
}

const CPUID_VMX: u32 = 1 << 5;
const CPUID_NX: u32 = 1 << 20;
const CPUID_RDTSCP: u32 = 1 << 27;

impl CapabilityMsrs {
    /// Reads what the calling CPU has; zeroes without VT-x.
    pub fn read() -> Self {
        let leaf = |leaf| core::arch::x86_64::__cpuid(leaf);
        let cpuid_ecx = leaf(1).ecx;
        if cpuid_ecx & CPUID_VMX == 0 {
            return Self::default();
        }
        // Both leaves exist on every CPU with long mode.
        let (extended, addresses) = (leaf(0x8000_0001), leaf(0x8000_0008));
        // SAFETY: these MSRs exist wherever CPUID shows VMX; the true ones, those of the
        // secondary controls and that of EPT where another MSR says so, which is looked at
        // before each.
        unsafe {
            let basic = BasicInformation::from_bits(rdmsr(IA32_VMX_BASIC));
            let allowed = |plain, exact| {
                Allowed(rdmsr(if basic.has_true_controls() { exact } else { plain }))
            };
            let primary = allowed(IA32_VMX_PROCBASED_CTLS, IA32_VMX_TRUE_PROCBASED_CTLS);
            let secondary = match primary.offers(PrimaryControls::SECONDARY_CONTROLS.bits()) {
                true => Allowed(rdmsr(IA32_VMX_PROCBASED_CTLS2)),
                false => Allowed::default(),
            };
            let has_ept_or_vpid = secondary.offers(SecondaryControls::ENABLE_EPT.bits())
                || secondary.offers(SecondaryControls::ENABLE_VPID.bits());
            let ept = if has_ept_or_vpid { rdmsr(IA32_VMX_EPT_VPID_CAP) } else { 0 };
            Self {
                cpuid_ecx,
                cpuid_extended_edx: extended.edx,
                physical_address_bits: addresses.eax as u8,
                feature_control: rdmsr(IA32_FEATURE_CONTROL),
                basic,
                pin: allowed(IA32_VMX_PINBASED_CTLS, IA32_VMX_TRUE_PINBASED_CTLS),
                primary,
                secondary,
                exit: allowed(IA32_VMX_EXIT_CTLS, IA32_VMX_TRUE_EXIT_CTLS),
                entry: allowed(IA32_VMX_ENTRY_CTLS, IA32_VMX_TRUE_ENTRY_CTLS),
                cr0_fixed0: rdmsr(IA32_VMX_CR0_FIXED0),
                cr0_fixed1: rdmsr(IA32_VMX_CR0_FIXED1),
                cr4_fixed0: rdmsr(IA32_VMX_CR4_FIXED0),
                cr4_fixed1: rdmsr(IA32_VMX_CR4_FIXED1),
                ept: EptVpidCapabilities::from_bits(ept),
                misc: rdmsr(IA32_VMX_MISC),
            }
        }
    }

    /// EPT is there, with all that the library needs of it: tables of four levels in write-back
    /// memory, 2 MiB pages, and INVEPT.
    pub fn has_ept(&self) -> bool {
        self.secondary.offers(SecondaryControls::ENABLE_EPT.bits())
            && self.ept.four_levels()
            && self.ept.write_back()
            && self.ept.large_pages()
            && self.ept.invept()
            && (self.ept.invept_single() || self.ept.invept_all())
    }

    /// Can VMXON be executed, as far as firmware has a say?
    ///
    /// # Errors
    /// [`Unsupported::NoExtension`] or [`Unsupported::LockedByFirmware`].
    pub fn check_permission(&self) -> Result<(), Unsupported> {
        if self.cpuid_ecx & CPUID_VMX == 0 {
            return Err(Unsupported::NoExtension);
        }
        let locked = self.feature_control & feature_control::LOCKED != 0;
        if locked && self.feature_control & feature_control::VMX_OUTSIDE_SMX == 0 {
            return Err(Unsupported::LockedByFirmware(
                "IA32_FEATURE_CONTROL, MSR 3A, is locked with bit 2, VMX outside SMX, clear",
            ));
        }
        Ok(())
    }
}

/// What one CPU offers, and what of it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// As read.
    pub msrs: CapabilityMsrs,
    /// Control words for every vCPU.
    pub(super) controls: Controls,
}

impl Capabilities {
    /// Interprets the MSRs.
    ///
    /// # Errors
    /// Why the CPU cannot run guests.
    pub fn new(msrs: CapabilityMsrs) -> Result<Self, Unsupported> {
        msrs.check_permission()?;
        let controls = Controls::choose(&msrs)?;
        // A page fault tells fetches from reads only where pages can forbid them.
        if !msrs.has_ept() && msrs.cpuid_extended_edx & CPUID_NX == 0 {
            return Err(Unsupported::MissingFeature(
                "EPT, or else NX (CPUID 8000_0001 EDX bit 20)",
            ));
        }
        Ok(Self { msrs, controls })
    }

    /// What of it is used for such a vCPU.
    ///
    /// The virtual-interrupt delivery of Bochs 2.7 has two faults, both read in its source. An exit
    /// amid a delivery names in the IDT-vectoring information the event that was delivered
    /// before: with nested tables, which map all memory, there is no such exit, but with shadow
    /// tables page faults are. And if an interrupt of the host's arrives while one is pending that
    /// RFLAGS.IF holds back, that is delivered all the same: vCPUs that have others are
    /// interrupted for their sake at any time.
    pub fn for_vcpu(self, setup: VcpuSetup) -> Self {
        let (misdelivers, mut controls) = match setup.translation {
            Translation::Nested(_) => (setup.has_siblings, self.controls),
            Translation::Shadow => (true, self.controls.for_shadow_paging()),
        };
        if misdelivers && self.msrs.basic.is_bochs() {
            controls.apic -= APIC_DELIVERY;
        }
        Self { controls, ..self }
    }

    /// True if all of `controls` are used.
    pub fn uses(&self, controls: SecondaryControls) -> bool {
        self.controls.secondary.contains(controls)
    }

    /// Guests are translated by nested tables.
    pub fn has_ept(&self) -> bool {
        self.uses(SecondaryControls::ENABLE_EPT)
    }

    /// CR8 is answered by a shadow in memory.
    pub fn has_tpr_shadow(&self) -> bool {
        self.controls.primary.contains(PrimaryControls::USE_TPR_SHADOW)
    }

    /// Ticks of the time-stamp counter in one of the VMX-preemption timer, as a power of two
    /// (Intel SDM vol. 3, A.6).
    pub const fn preemption_shift(&self) -> u32 {
        self.msrs.misc as u32 & 0x1F
    }

    /// Guests run without paging and in real mode.
    pub fn has_unrestricted_guest(&self) -> bool {
        self.controls.secondary.contains(SecondaryControls::UNRESTRICTED_GUEST)
    }

    /// Guests without paging run on an identity map.
    pub fn needs_identity_map(&self) -> bool {
        !self.has_unrestricted_guest() && self.has_ept()
    }

    /// The CPU keeps track of when the guest takes no NMIs.
    pub fn has_virtual_nmis(&self) -> bool {
        self.controls.pin.contains(PinbasedControls::VIRTUAL_NMIS)
    }

    /// The VMCS holds EFER.
    pub fn switches_efer(&self) -> bool {
        self.controls.entry.contains(EntryControls::LOAD_IA32_EFER)
    }

    /// The guest's PAT is loaded at entry.
    pub fn switches_pat(&self) -> bool {
        self.controls.entry.contains(EntryControls::LOAD_IA32_PAT)
    }

    /// RDTSCP works in guests, and with it the TSC_AUX MSR.
    pub fn has_tsc_aux(&self) -> bool {
        self.msrs.cpuid_extended_edx & CPUID_RDTSCP != 0
            && self.uses(SecondaryControls::ENABLE_RDTSCP)
    }

    /// The value of CR0 with which a guest runs that believes in `wanted`. Caching is not the
    /// guest's to switch off.
    pub fn real_cr0(&self, wanted: u64) -> u64 {
        let fixed = self.fixed_cr0();
        (wanted & !(cr0::CD | cr0::NW) | fixed) & self.msrs.cr0_fixed1
    }

    /// Bits of CR0 that are one while a guest runs. An unrestricted guest has a choice in PE and
    /// PG (Intel SDM vol. 3, 23.8).
    pub fn fixed_cr0(&self) -> u64 {
        match self.has_unrestricted_guest() {
            true => self.msrs.cr0_fixed0 & !(cr0::PE | cr0::PG),
            false => self.msrs.cr0_fixed0,
        }
    }

    /// The value of CR4 with which a guest runs that believes in `wanted`. A machine check exits
    /// only while MCE is set; without it the CPU shuts down, and the machine with it (Intel SDM vol.
    /// 3, 6.15).
    pub fn real_cr4(&self, wanted: u64) -> u64 {
        (wanted | self.msrs.cr4_fixed0 | cr4::VMXE | cr4::MCE) & self.msrs.cr4_fixed1
    }

    /// The VMCS fields that exist, of those that are used at all: others exist only if the
    /// control that they belong to does.
    pub(super) fn fields(&self) -> FieldSet {
        let missing = |exists: bool, fields: FieldSet| if exists { 0 } else { fields };
        let tpr = Field::TprThreshold.bit() | Field::VirtualApic.bit();
        let pat = Field::GuestPat.bit() | Field::HostPat.bit();
        let efer = Field::GuestEfer.bit() | Field::HostEfer.bit();
        let has_secondary = self.controls.primary.contains(PrimaryControls::SECONDARY_CONTROLS);
        let ept = Field::EptPointer.bit()
            | Field::Pdpte0.bit()
            | Field::Pdpte1.bit()
            | Field::Pdpte2.bit()
            | Field::Pdpte3.bit();
        let delivery = Field::EoiExit0.bit()
            | Field::EoiExit1.bit()
            | Field::EoiExit2.bit()
            | Field::EoiExit3.bit()
            | Field::InterruptStatus.bit();
        let pause_loop = Field::PauseLoopGap.bit() | Field::PauseLoopWindow.bit();
        let apic = self.controls.apic;
        !(missing(has_secondary, Field::SecondaryControls.bit())
            | missing(self.has_ept(), ept)
            | missing(self.uses(SecondaryControls::ENABLE_VPID), Field::Vpid.bit())
            | missing(self.uses(SecondaryControls::ENCLS_EXITING), Field::EnclsBitmap.bit())
            | missing(self.has_tpr_shadow(), tpr)
            | missing(
                apic.contains(SecondaryControls::VIRTUALIZE_APIC),
                Field::ApicAccessPage.bit(),
            )
            | missing(apic.contains(APIC_DELIVERY), delivery)
            | missing(self.controls.preemption_timer, Field::PreemptionTimer.bit())
            | missing(self.controls.pause_loop, pause_loop)
            | missing(self.switches_pat(), pat)
            | missing(self.switches_efer(), efer))
    }

    /// Names for reports.
    pub fn names(&self) -> Vec<String> {
        let apic = self.controls.apic;
        [
            (self.has_ept(), "ept"),
            (self.has_unrestricted_guest(), "unrestricted_guest"),
            (!self.has_unrestricted_guest(), "interpreted_real_mode"),
            (self.needs_identity_map(), "identity_map"),
            (self.has_virtual_nmis(), "virtual_nmis"),
            (self.switches_efer(), "efer"),
            (!self.switches_efer(), "efer_areas"),
            (self.msrs.basic.has_true_controls(), "true_controls"),
            (self.has_ept() && self.msrs.ept.huge_pages(), "page1gb"),
            (self.uses(SecondaryControls::ENABLE_VPID), "vpid"),
            (self.has_tpr_shadow(), "tpr_shadow"),
            (apic.contains(SecondaryControls::VIRTUALIZE_APIC), "apic_access"),
            (apic.contains(SecondaryControls::VIRTUALIZE_X2APIC), "x2apic"),
            (apic.contains(APIC_DELIVERY), "apicv"),
            (self.controls.preemption_timer, "preemption_timer"),
            (self.controls.pause_loop, "pause_loop_exiting"),
            (self.has_ept() && self.msrs.ept.accessed_dirty(), "ept_accessed_dirty"),
            (self.switches_pat(), "pat"),
            (self.uses(SecondaryControls::ENABLE_RDTSCP), "rdtscp"),
            (self.uses(SecondaryControls::WBINVD_EXITING), "wbinvd_exiting"),
            (self.uses(SecondaryControls::ENCLS_EXITING), "encls_exiting"),
        ]
        .into_iter()
        .filter(|(used, _)| *used)
        .map(|(_, name)| name.into())
        .collect()
    }
}

/// CPUs for tests.
#[cfg(any(test, feature = "mock-backend"))]
pub mod samples {
    use super::*;

    /// A CPU model, by what its VT-x lacks.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum SampleModel {
        /// Nothing that the library uses.
        Complete,
        /// Real mode, and protected mode without paging.
        NoUnrestrictedGuest,
        /// Nested paging.
        NoEpt,
    }

    impl SampleModel {
        /// What it offers.
        pub(crate) fn capabilities(self) -> Capabilities {
            const UNRESTRICTED_GUEST: u32 = 1 << 7;
            let msrs = match self {
                Self::Complete => TIGER_LAKE,
                Self::NoUnrestrictedGuest => CapabilityMsrs {
                    secondary: without(TIGER_LAKE.secondary, UNRESTRICTED_GUEST),
                    ..TIGER_LAKE
                },
                Self::NoEpt => PENRYN,
            };
            Capabilities::new(msrs).expect("a VMM can use the CPU")
        }
    }

    /// Bochs's `tigerlake`, as far as it matters here.
    pub const TIGER_LAKE: CapabilityMsrs = CapabilityMsrs {
        cpuid_ecx: CPUID_VMX,
        cpuid_extended_edx: CPUID_RDTSCP,
        physical_address_bits: 39,
        feature_control: 5,
        basic: BasicInformation::from_bits(0x00D8_1000_0000_002B),
        pin: Allowed(0x0000_007F_0000_0016),
        primary: Allowed(0xFFF9_FFFE_0400_6172),
        secondary: Allowed(0x0297_7FFF_0000_0000),
        exit: Allowed(0x007F_FFFF_0003_6DFB),
        entry: Allowed(0x0000_FFFF_0000_11FB),
        cr0_fixed0: 0x8000_0021,
        cr0_fixed1: 0xFFFF_FFFF,
        cr4_fixed0: 0x2000,
        cr4_fixed1: 0x0037_7FFF,
        ept: EptVpidCapabilities::from_bits(0x0F01_06B3_4141),
        misc: 0x2004_01E0,
    };

    /// Bochs's `core2_penryn_t9600`, as far as it matters here.
    pub const PENRYN: CapabilityMsrs = CapabilityMsrs {
        cpuid_ecx: 0x0C08_E3FD,
        cpuid_extended_edx: 0x2010_0800,
        physical_address_bits: 40,
        feature_control: 5,
        basic: BasicInformation::from_bits(0x00D8_1000_0000_002B),
        pin: Allowed(0x0000_003F_0000_0016),
        primary: Allowed(0xF7F9_FFFE_0400_6172),
        secondary: Allowed(0x0000_0041_0000_0000),
        exit: Allowed(0x0003_FFFF_0003_6DFB),
        entry: Allowed(0x0000_3FFF_0000_11FB),
        cr0_fixed0: 0x8000_0021,
        cr0_fixed1: 0xFFFF_FFFF,
        cr4_fixed0: 0x2000,
        cr4_fixed1: 0x0004_67FF,
        ept: EptVpidCapabilities::new(),
        misc: 0,
    };

    /// The same MSR with `bits` not offered.
    pub const fn without(allowed: Allowed, bits: u32) -> Allowed {
        Allowed(allowed.0 & !((bits as u64) << 32))
    }
}

#[cfg(test)]
mod tests {
    use host_iface::HostPhysAddr;

    use super::{
        samples::{PENRYN, TIGER_LAKE, without},
        *,
    };
    use crate::backend::ApicSetup;

    const SHADOW: VcpuSetup = VcpuSetup {
        translation: Translation::Shadow,
        tsc_offset: 0,
        apic: ApicSetup::Emulated,
        has_siblings: false,
    };

    #[test]
    fn bochs_delivers_interrupts_only_where_it_does_so_rightly() {
        let nested =
            VcpuSetup { translation: Translation::Nested(HostPhysAddr::new(0x1000)), ..SHADOW };
        let sibling = VcpuSetup { has_siblings: true, ..nested };
        let delivers = |basic, setup| {
            let capabilities = Capabilities::new(CapabilityMsrs { basic, ..TIGER_LAKE }).unwrap();
            capabilities.for_vcpu(setup).controls.apic.contains(APIC_DELIVERY)
        };
        let real = TIGER_LAKE.basic.with_region_bytes(1024);
        let kvm = TIGER_LAKE.basic.with_revision(KVM_REVISION);
        for (setup, with_bochs) in [(nested, true), (sibling, false), (SHADOW, false)] {
            assert_eq!(delivers(TIGER_LAKE.basic, setup), with_bochs);
            assert!(delivers(real, setup) && delivers(kvm, setup));
        }
    }

    #[test]
    fn reads_the_words_as_the_manual_lays_them_out() {
        let basic = TIGER_LAKE.basic;
        assert_eq!((basic.revision(), basic.region_bytes()), (0x2B, 4096));
        assert!(basic.has_true_controls() && !basic.narrow_addresses());
        let ept = TIGER_LAKE.ept;
        assert!(ept.four_levels() && ept.write_back() && ept.large_pages() && ept.huge_pages());
        assert!(ept.invept() && ept.invept_single() && ept.invept_all() && ept.accessed_dirty());
        assert!(ept.invvpid() && ept.invvpid_single() && ept.invvpid_all());
    }

    #[test]
    fn refuses_clearly() {
        assert_eq!(Capabilities::new(CapabilityMsrs::default()), Err(Unsupported::NoExtension));
        let locked = CapabilityMsrs { feature_control: 1, ..TIGER_LAKE };
        let error = Capabilities::new(locked);
        assert!(matches!(error, Err(Unsupported::LockedByFirmware(text)) if text.contains("3A")));
        let unlocked = CapabilityMsrs { feature_control: 0, ..TIGER_LAKE };
        assert!(Capabilities::new(unlocked).is_ok(), "we lock it ourselves");
        let no_bitmaps = CapabilityMsrs {
            primary: without(PENRYN.primary, PrimaryControls::USE_MSR_BITMAPS.bits()),
            ..PENRYN
        };
        assert!(matches!(Capabilities::new(no_bitmaps), Err(Unsupported::MissingFeature(_))));
        let no_nx = CapabilityMsrs { cpuid_extended_edx: 0, ..PENRYN };
        let error = Capabilities::new(no_nx);
        assert!(matches!(error, Err(Unsupported::MissingFeature(text)) if text.contains("NX")));
    }

    #[test]
    fn fields_exist_with_what_they_belong_to() {
        let fields = |capabilities: Capabilities| {
            [Field::EptPointer, Field::Pdpte3, Field::SecondaryControls, Field::Vpid]
                .map(|field| capabilities.fields() & field.bit() != 0)
        };
        let tiger_lake = Capabilities::new(TIGER_LAKE).unwrap();
        assert_eq!(fields(tiger_lake), [true; 4]);
        assert_eq!(fields(tiger_lake.for_vcpu(SHADOW)), [false, false, true, true]);
        assert_eq!(fields(Capabilities::new(PENRYN).unwrap()), [false, false, true, false]);
    }

    #[test]
    fn no_guest_is_unrestricted_on_shadow_tables() {
        let capabilities = Capabilities::new(TIGER_LAKE).unwrap();
        assert!(capabilities.has_unrestricted_guest() && capabilities.has_ept());
        let shadow = capabilities.for_vcpu(SHADOW);
        assert!(!shadow.has_unrestricted_guest() && !shadow.needs_identity_map());
        assert_eq!(shadow.fixed_cr0() & (cr0::PE | cr0::PG), cr0::PE | cr0::PG);
        let penryn = Capabilities::new(PENRYN).unwrap();
        assert_eq!(penryn, penryn.for_vcpu(SHADOW));
        assert!(!penryn.names().contains(&"ept".into()));
    }

    #[test]
    fn control_registers_get_what_vmx_wants() {
        let capabilities = Capabilities::new(TIGER_LAKE).unwrap();
        let reset = capabilities.real_cr0(cr0::CD | cr0::NW | cr0::ET);
        assert_eq!(reset, cr0::ET | cr0::NE, "real mode stays, caches stay on");
        assert_eq!(capabilities.real_cr4(cr4::PAE), cr4::PAE | cr4::VMXE | cr4::MCE);
    }
}
