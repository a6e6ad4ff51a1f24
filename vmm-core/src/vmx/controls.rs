// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control words: what is wanted, fitted into what a CPU allows (Intel SDM vol. 3, appendix
//! A.2 to A.5).

use x86::vmx::vmcs::control::{
    EntryControls, ExitControls, PinbasedControls, PrimaryControls, SecondaryControls,
};

use super::capability::CapabilityMsrs;
use crate::backend::Unsupported;

/// A capability MSR: which bits of a control word have to be one, and which may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allowed(pub u64);

impl Allowed {
    const fn must_be_one(self) -> u32 {
        self.0 as u32
    }

    const fn may_be_one(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// True if all of `bits` may be one.
    pub const fn offers(self, bits: u32) -> bool {
        self.may_be_one() & bits == bits
    }

    /// The control word with all of `required` and what there is of `optional`.
    fn adjust(self, required: &[(u32, &'static str)], optional: u32) -> Result<u32, Unsupported> {
        let mut word = self.must_be_one() | optional & self.may_be_one();
        for (bits, name) in required {
            if !self.offers(*bits) {
                return Err(Unsupported::MissingFeature(name));
            }
            word |= bits;
        }
        Ok(word)
    }
}

/// The control words of every vCPU, but for what changes from entry to entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controls {
    pub pin: PinbasedControls,
    pub primary: PrimaryControls,
    pub secondary: SecondaryControls,
    pub exit: ExitControls,
    pub entry: EntryControls,
    /// Secondary controls of those parts of APIC virtualization that are used when the mode of
    /// a guest's local APIC asks for them.
    pub apic: SecondaryControls,
    /// The VMX-preemption timer can be used, which stands still outside the guest.
    pub preemption_timer: bool,
    /// PAUSE-loop exiting can be used, for VMs with several vCPUs.
    pub pause_loop: bool,
}

const PIN: [(u32, &str); 2] = [
    (
        PinbasedControls::EXTERNAL_INTERRUPT_EXITING.bits(),
        "external-interrupt exiting (IA32_VMX_PINBASED_CTLS bit 32)",
    ),
    (PinbasedControls::NMI_EXITING.bits(), "NMI exiting (IA32_VMX_PINBASED_CTLS bit 35)"),
];

const PRIMARY: [(u32, &str); 11] = [
    (
        PrimaryControls::INTERRUPT_WINDOW_EXITING.bits(),
        "interrupt-window exiting (IA32_VMX_PROCBASED_CTLS bit 34)",
    ),
    (PrimaryControls::USE_TSC_OFFSETTING.bits(), "TSC offsetting (IA32_VMX_PROCBASED_CTLS bit 35)"),
    (PrimaryControls::HLT_EXITING.bits(), "HLT exiting (IA32_VMX_PROCBASED_CTLS bit 39)"),
    (PrimaryControls::INVLPG_EXITING.bits(), "INVLPG exiting (IA32_VMX_PROCBASED_CTLS bit 41)"),
    (PrimaryControls::MWAIT_EXITING.bits(), "MWAIT exiting (IA32_VMX_PROCBASED_CTLS bit 42)"),
    (PrimaryControls::RDPMC_EXITING.bits(), "RDPMC exiting (IA32_VMX_PROCBASED_CTLS bit 43)"),
    (PrimaryControls::CR3_LOAD_EXITING.bits(), "CR3-load exiting (IA32_VMX_PROCBASED_CTLS bit 47)"),
    (
        PrimaryControls::CR3_STORE_EXITING.bits(),
        "CR3-store exiting (IA32_VMX_PROCBASED_CTLS bit 48)",
    ),
    (PrimaryControls::USE_IO_BITMAPS.bits(), "I/O bitmaps (IA32_VMX_PROCBASED_CTLS bit 57)"),
    (PrimaryControls::USE_MSR_BITMAPS.bits(), "MSR bitmaps (IA32_VMX_PROCBASED_CTLS bit 60)"),
    (PrimaryControls::MONITOR_EXITING.bits(), "MONITOR exiting (IA32_VMX_PROCBASED_CTLS bit 61)"),
];

/// What has to exit for a guest on shadow tables to believe that its own are used. With EPT they
/// are.
const PAGING_EXITS: PrimaryControls = PrimaryControls::INVLPG_EXITING
    .union(PrimaryControls::CR3_LOAD_EXITING)
    .union(PrimaryControls::CR3_STORE_EXITING);

const CR8_EXITING: [(u32, &str); 2] = [
    (PrimaryControls::CR8_LOAD_EXITING.bits(), "CR8-load exiting (IA32_VMX_PROCBASED_CTLS bit 51)"),
    (
        PrimaryControls::CR8_STORE_EXITING.bits(),
        "CR8-store exiting (IA32_VMX_PROCBASED_CTLS bit 52)",
    ),
];

const NMI_WINDOW: [(u32, &str); 1] = [(
    PrimaryControls::NMI_WINDOW_EXITING.bits(),
    "NMI-window exiting (IA32_VMX_PROCBASED_CTLS bit 54)",
)];

const EXIT: [(u32, &str); 2] = [
    (
        ExitControls::SAVE_DEBUG_CONTROLS.bits(),
        "saving of debug controls (IA32_VMX_EXIT_CTLS bit 34)",
    ),
    (ExitControls::HOST_ADDRESS_SPACE_SIZE.bits(), "a 64-bit host (IA32_VMX_EXIT_CTLS bit 41)"),
];

const ENTRY: [(u32, &str); 2] = [
    (
        EntryControls::LOAD_DEBUG_CONTROLS.bits(),
        "loading of debug controls (IA32_VMX_ENTRY_CTLS bit 34)",
    ),
    (EntryControls::IA32E_MODE_GUEST.bits(), "64-bit guests (IA32_VMX_ENTRY_CTLS bit 41)"),
];

impl Controls {
    /// Fits what the library needs and can use into what the CPU allows. With EPT the words are
    /// those of guests with nested paging.
    ///
    /// # Errors
    /// The name of a control that is needed and missing, with its MSR bit.
    pub fn choose(msrs: &CapabilityMsrs) -> Result<Self, Unsupported> {
        // The window for virtual NMIs comes with them.
        let virtual_nmis = PinbasedControls::VIRTUAL_NMIS.bits();
        let has_nmi_window = msrs.primary.adjust(&NMI_WINDOW, 0).is_ok();
        let pin = msrs.pin.adjust(&PIN, if has_nmi_window { virtual_nmis } else { 0 })?;
        let optional = PrimaryControls::USE_TPR_SHADOW | PrimaryControls::SECONDARY_CONTROLS;
        let mut primary = msrs.primary.adjust(&PRIMARY, optional.bits())?;
        if primary & PrimaryControls::USE_TPR_SHADOW.bits() == 0 {
            primary |= msrs.primary.adjust(&CR8_EXITING, 0)?;
        }
        // Off until somebody asks for a window, or for shadow paging.
        let later = PrimaryControls::INTERRUPT_WINDOW_EXITING | PAGING_EXITS;
        primary &= !later.bits() | msrs.primary.must_be_one();
        let mut useful = SecondaryControls::ENABLE_RDTSCP
            | SecondaryControls::WBINVD_EXITING
            | SecondaryControls::ENCLS_EXITING;
        if msrs.has_ept() {
            useful |= SecondaryControls::ENABLE_EPT | SecondaryControls::UNRESTRICTED_GUEST;
        }
        if msrs.ept.has_vpid_invalidation() {
            useful |= SecondaryControls::ENABLE_VPID;
        }
        let secondary = msrs.secondary.adjust(&[], useful.bits())?;
        // What is loaded of the guest at entries must come back of the host at exits.
        let (mut exit_loads, mut entry_loads) = (ExitControls::empty(), EntryControls::empty());
        for (exit, entry) in [
            (ExitControls::LOAD_IA32_PAT, EntryControls::LOAD_IA32_PAT),
            (ExitControls::LOAD_IA32_EFER, EntryControls::LOAD_IA32_EFER),
        ] {
            if msrs.exit.offers(exit.bits()) && msrs.entry.offers(entry.bits()) {
                exit_loads |= exit;
                entry_loads |= entry;
            }
        }
        let exit = msrs.exit.adjust(&EXIT, exit_loads.bits())?;
        let entry = msrs.entry.adjust(&ENTRY, entry_loads.bits())?;
        let preemption_timer = msrs.pin.offers(PinbasedControls::VMX_PREEMPTION_TIMER.bits())
            && msrs.exit.offers(ExitControls::SAVE_VMX_PREEMPTION_TIMER.bits());
        let apic = match primary & PrimaryControls::USE_TPR_SHADOW.bits() {
            0 => SecondaryControls::empty(),
            _ => apic_controls(msrs.secondary),
        };
        // SAFETY: these are sets of flags; a bit without a name, which the CPU wants set, is
        // kept as it is and means nothing to the library.
        let controls = unsafe {
            Self {
                pin: PinbasedControls::from_bits_unchecked(pin),
                primary: PrimaryControls::from_bits_unchecked(primary),
                secondary: SecondaryControls::from_bits_unchecked(secondary),
                exit: ExitControls::from_bits_unchecked(exit),
                entry: EntryControls::from_bits_unchecked(entry) - EntryControls::IA32E_MODE_GUEST,
                apic,
                preemption_timer,
                pause_loop: msrs.secondary.offers(SecondaryControls::PAUSE_LOOP_EXITING.bits()),
            }
        };
        Ok(if msrs.has_ept() { controls } else { controls.for_shadow_paging() })
    }

    /// The words for guests with shadow paging, on any CPU. Without EPT no guest is unrestricted
    /// (Intel SDM vol. 3, 26.2.1.1). The entries of shadow tables mean the host's PAT, so that
    /// stays, whatever the guest has in its own. No page of theirs stands for the registers of
    /// the local APIC.
    pub fn for_shadow_paging(self) -> Self {
        Self {
            primary: self.primary | PAGING_EXITS,
            secondary: self.secondary
                - SecondaryControls::ENABLE_EPT
                - SecondaryControls::UNRESTRICTED_GUEST,
            exit: self.exit - ExitControls::LOAD_IA32_PAT,
            entry: self.entry - EntryControls::LOAD_IA32_PAT,
            apic: self.apic - SecondaryControls::VIRTUALIZE_APIC,
            ..self
        }
    }
}

/// Registers and interrupts of the local APIC in the CPU's hands; the one is of use only with
/// the other.
pub const APIC_DELIVERY: SecondaryControls = SecondaryControls::VIRTUALIZE_APIC_REGISTER
    .union(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);

/// What there is of APIC virtualization; all of it needs the TPR shadow (Intel SDM vol. 3,
/// 26.2.1.1).
fn apic_controls(offered: Allowed) -> SecondaryControls {
    let parts =
        [SecondaryControls::VIRTUALIZE_APIC, SecondaryControls::VIRTUALIZE_X2APIC, APIC_DELIVERY];
    parts.into_iter().filter(|part| offered.offers(part.bits())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::capability::samples::{PENRYN, TIGER_LAKE, without};

    #[test]
    fn takes_what_is_offered() {
        let controls = Controls::choose(&TIGER_LAKE).unwrap();
        assert!(controls.primary.contains(PrimaryControls::USE_TPR_SHADOW));
        assert!(!controls.primary.contains(PrimaryControls::CR8_LOAD_EXITING));
        assert!(!controls.primary.contains(PrimaryControls::CR3_LOAD_EXITING), "true controls");
        assert!(!controls.primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING));
        assert!(controls.secondary.contains(SecondaryControls::ENABLE_VPID));
        assert!(!controls.secondary.contains(SecondaryControls::ENABLE_INVPCID));
        assert!(!controls.entry.contains(EntryControls::IA32E_MODE_GUEST));
        assert!(controls.apic.contains(APIC_DELIVERY) && controls.preemption_timer);
        assert!(controls.pause_loop);
        assert!(!controls.secondary.contains(SecondaryControls::PAUSE_LOOP_EXITING));
        assert!(!controls.secondary.intersects(controls.apic), "the mode of the guest decides");
        assert_eq!(
            controls.pin.bits() & TIGER_LAKE.pin.must_be_one(),
            TIGER_LAKE.pin.must_be_one()
        );
    }

    #[test]
    fn names_what_is_missing() {
        let msrs = CapabilityMsrs {
            primary: without(TIGER_LAKE.primary, PrimaryControls::USE_MSR_BITMAPS.bits()),
            ..TIGER_LAKE
        };
        let Err(Unsupported::MissingFeature(text)) = Controls::choose(&msrs) else {
            panic!("MSR bitmaps are needed")
        };
        assert!(text.contains("IA32_VMX_PROCBASED_CTLS bit 60"));
    }

    #[test]
    fn does_without_what_is_useful_only() {
        let msrs = CapabilityMsrs {
            primary: without(TIGER_LAKE.primary, PrimaryControls::USE_TPR_SHADOW.bits()),
            pin: without(TIGER_LAKE.pin, PinbasedControls::VMX_PREEMPTION_TIMER.bits()),
            secondary: without(
                TIGER_LAKE.secondary,
                (SecondaryControls::ENABLE_VPID | SecondaryControls::PAUSE_LOOP_EXITING).bits(),
            ),
            exit: without(TIGER_LAKE.exit, ExitControls::LOAD_IA32_PAT.bits()),
            ..TIGER_LAKE
        };
        let controls = Controls::choose(&msrs).unwrap();
        assert!(
            controls
                .primary
                .contains(PrimaryControls::CR8_LOAD_EXITING | PrimaryControls::CR8_STORE_EXITING)
        );
        assert!(!controls.secondary.contains(SecondaryControls::ENABLE_VPID));
        assert!(controls.apic.is_empty() && !controls.preemption_timer && !controls.pause_loop);
        assert!(!controls.entry.contains(EntryControls::LOAD_IA32_PAT));
    }

    #[test]
    fn half_of_interrupt_delivery_is_none() {
        let half = SecondaryControls::VIRTUALIZE_APIC_REGISTER;
        let msrs =
            CapabilityMsrs { secondary: without(TIGER_LAKE.secondary, half.bits()), ..TIGER_LAKE };
        let apic = Controls::choose(&msrs).unwrap().apic;
        let rest = SecondaryControls::VIRTUALIZE_APIC | SecondaryControls::VIRTUALIZE_X2APIC;
        assert_eq!(apic, rest);
    }

    #[test]
    fn early_cpus_lack_what_has_another_way() {
        let msrs = CapabilityMsrs {
            pin: without(TIGER_LAKE.pin, PinbasedControls::VIRTUAL_NMIS.bits()),
            secondary: without(TIGER_LAKE.secondary, SecondaryControls::UNRESTRICTED_GUEST.bits()),
            entry: without(TIGER_LAKE.entry, EntryControls::LOAD_IA32_EFER.bits()),
            ..TIGER_LAKE
        };
        let controls = Controls::choose(&msrs).unwrap();
        assert!(!controls.pin.contains(PinbasedControls::VIRTUAL_NMIS));
        assert!(!controls.secondary.contains(SecondaryControls::UNRESTRICTED_GUEST));
        assert!(!controls.exit.contains(ExitControls::LOAD_IA32_EFER), "both or neither");
        let no_window = CapabilityMsrs {
            primary: without(TIGER_LAKE.primary, PrimaryControls::NMI_WINDOW_EXITING.bits()),
            ..TIGER_LAKE
        };
        let pin = Controls::choose(&no_window).unwrap().pin;
        assert!(!pin.contains(PinbasedControls::VIRTUAL_NMIS));
    }

    #[test]
    fn without_ept_the_guests_paging_exits() {
        let controls = Controls::choose(&PENRYN).unwrap();
        assert!(controls.primary.contains(PAGING_EXITS));
        assert!(controls.primary.contains(PrimaryControls::USE_TPR_SHADOW));
        assert_eq!(controls.secondary, SecondaryControls::WBINVD_EXITING);
        assert!(!controls.entry.contains(EntryControls::LOAD_IA32_EFER));
        assert_eq!(controls, controls.for_shadow_paging());
    }

    #[test]
    fn shadow_paging_is_a_choice_with_ept() {
        let nested = Controls::choose(&TIGER_LAKE).unwrap();
        let uses_ept = SecondaryControls::ENABLE_EPT | SecondaryControls::UNRESTRICTED_GUEST;
        assert!(nested.secondary.contains(uses_ept) && !nested.primary.intersects(PAGING_EXITS));
        let shadow = nested.for_shadow_paging();
        assert!(!shadow.secondary.intersects(uses_ept) && shadow.primary.contains(PAGING_EXITS));
        assert_eq!(shadow.secondary, nested.secondary - uses_ept, "VPID stays");
        assert!(nested.entry.contains(EntryControls::LOAD_IA32_PAT));
        assert!(!shadow.entry.contains(EntryControls::LOAD_IA32_PAT));
        assert!(!shadow.exit.contains(ExitControls::LOAD_IA32_PAT), "the host's was not replaced");
        assert!(shadow.entry.contains(EntryControls::LOAD_IA32_EFER));
    }

    #[test]
    fn half_of_ept_is_none() {
        let msrs = CapabilityMsrs { ept: TIGER_LAKE.ept.with_invept(false), ..TIGER_LAKE };
        let controls = Controls::choose(&msrs).unwrap();
        assert_eq!(controls, Controls::choose(&TIGER_LAKE).unwrap().for_shadow_paging());
    }

    #[test]
    fn the_first_cpus_have_no_secondary_controls() {
        let none = PrimaryControls::SECONDARY_CONTROLS;
        let msrs = CapabilityMsrs {
            primary: without(PENRYN.primary, none.bits()),
            secondary: Allowed::default(),
            ..PENRYN
        };
        let controls = Controls::choose(&msrs).unwrap();
        assert!(!controls.primary.contains(none) && controls.secondary.is_empty());
    }

    #[test]
    fn exits_that_shadow_paging_needs_are_required() {
        for bits in [PrimaryControls::INVLPG_EXITING, PrimaryControls::CR3_LOAD_EXITING] {
            let msrs = CapabilityMsrs { primary: without(PENRYN.primary, bits.bits()), ..PENRYN };
            let error = Controls::choose(&msrs);
            assert!(matches!(error, Err(Unsupported::MissingFeature(_))), "{bits:?}");
        }
    }

    #[test]
    fn required_names_give_the_right_bits() {
        for (list, _) in [
            (&PIN[..], 0),
            (&PRIMARY[..], 0),
            (&CR8_EXITING[..], 0),
            (&NMI_WINDOW[..], 0),
            (&EXIT[..], 0),
            (&ENTRY[..], 0),
        ] {
            for (bits, name) in list {
                let expected = std::format!("bit {})", 32 + bits.trailing_zeros());
                assert!(name.ends_with(&expected), "{name}");
            }
        }
    }
}
