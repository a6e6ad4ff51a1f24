// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consistency checks of VMRUN, made again to tell which one failed (AMD APM vol. 2,
//! 15.5.1). The CPU itself tells only that one did.

use super::vmcb::{EventInfo, Vmcb, event_kind};
use crate::state::{SegmentAttributes, cr0, cr4, efer};

/// What the checks look at, as it was before the entry: a CPU that refuses it may have written
/// the host's registers over the guest's (Bochs 2.7 and QEMU 7.2 do).
#[derive(Clone, Copy, Default, Debug)]
pub struct EntryState {
    efer: u64,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    dr6: u64,
    dr7: u64,
    code_attributes: u16,
    event: EventInfo,
    intercepts_vmrun: bool,
    permission_maps: u64,
    asid: u32,
    /// Width of the CPU's physical addresses.
    address_bits: u8,
}

/// The widest physical addresses that there can be.
const MAX_ADDRESS_BITS: u8 = 52;

impl From<&Vmcb> for EntryState {
    fn from(vmcb: &Vmcb) -> Self {
        let Vmcb { control, save } = vmcb;
        Self {
            efer: save.efer,
            cr0: save.cr0,
            cr3: save.cr3,
            cr4: save.cr4,
            dr6: save.dr6,
            dr7: save.dr7,
            code_attributes: save.cs.attributes,
            event: control.event_injection,
            intercepts_vmrun: control.intercepts2.vmrun(),
            permission_maps: control.io_permission_map | control.msr_permission_map,
            asid: control.asid,
            address_bits: MAX_ADDRESS_BITS,
        }
    }
}

impl EntryState {
    /// The same on a CPU whose physical addresses have so many bits.
    pub fn with_address_bits(self, bits: u8) -> Self {
        Self { address_bits: bits.min(MAX_ADDRESS_BITS), ..self }
    }
}

type Check = (&'static str, fn(&EntryState) -> bool);

/// Checks in the manual's order; each function is true if the state passes.
const CHECKS: &[Check] = &[
    ("EFER.SVME is clear (APM vol. 2, 15.5.1)", |state| state.efer & efer::SVME != 0),
    ("CR0.NW without CR0.CD (APM vol. 2, 15.5.1)", |state| {
        state.cr0 & (cr0::CD | cr0::NW) != cr0::NW
    }),
    ("CR0 has a bit above 31 (APM vol. 2, 15.5.1)", |state| state.cr0 >> 32 == 0),
    ("CR3 has a reserved bit (APM vol. 2, 15.5.1)", |state| state.cr3 >> state.address_bits == 0),
    ("CR4 has a reserved bit (APM vol. 2, 15.5.1)", |state| state.cr4 >> 32 == 0),
    ("DR6 has a bit above 31 (APM vol. 2, 15.5.1)", |state| state.dr6 >> 32 == 0),
    ("DR7 has a bit above 31 (APM vol. 2, 15.5.1)", |state| state.dr7 >> 32 == 0),
    ("EFER has a reserved bit (APM vol. 2, 15.5.1)", |state| state.efer & !EFER_DEFINED == 0),
    ("EFER.LME and CR0.PG without CR4.PAE (APM vol. 2, 15.5.1)", |state| {
        !is_long(state) || state.cr4 & cr4::PAE != 0
    }),
    ("EFER.LME and CR0.PG without CR0.PE (APM vol. 2, 15.5.1)", |state| {
        !is_long(state) || state.cr0 & cr0::PE != 0
    }),
    ("CS.L and CS.D in long mode (APM vol. 2, 15.5.1)", |state| {
        let cs = SegmentAttributes::from_bits(state.code_attributes.into());
        !is_long(state) || !cs.long() || !cs.default_big()
    }),
    ("VMRUN is not intercepted (APM vol. 2, 15.5.1)", |state| state.intercepts_vmrun),
    ("a permission map lies beyond the physical addresses (APM vol. 2, 15.5.1)", |state| {
        state.permission_maps >> state.address_bits == 0
    }),
    ("the event to inject is none that exists (APM vol. 2, 15.20)", has_possible_event),
    ("the ASID is zero (APM vol. 2, 15.5.1)", |state| state.asid != 0),
];

const EFER_DEFINED: u64 = efer::SCE
    | efer::LME
    | efer::LMA
    | efer::NXE
    | efer::SVME
    | efer::LMSLE
    | efer::FFXSR
    | efer::TCE;

/// Exceptions have vectors below this one.
const EXCEPTION_VECTORS: u8 = 32;
const NMI_VECTOR: u8 = 2;

fn is_long(state: &EntryState) -> bool {
    state.efer & efer::LME != 0 && state.cr0 & cr0::PG != 0
}

fn has_possible_event(state: &EntryState) -> bool {
    let event = state.event;
    !event.valid()
        || match event.kind() {
            event_kind::EXCEPTION => {
                event.vector() < EXCEPTION_VECTORS && event.vector() != NMI_VECTOR
            }
            event_kind::INTERRUPT | event_kind::NMI | event_kind::SOFTWARE => true,
            _ => false,
        }
}

/// Whether `state` passes all checks.
pub fn passes(state: &EntryState) -> bool {
    failure(state).is_none()
}

/// The first check that `state` fails.
pub fn first_failure(state: &EntryState) -> &'static str {
    failure(state)
        .unwrap_or("a consistency check of VMRUN that the VMM does not know (APM vol. 2, 15.5.1)")
}

/// The same for an entry that changed nothing since an exit, after an earlier one that the CPU
/// accepted: the guest itself, by a write that does not exit, made what is refused. It is CR0 if
/// `state`, as the refusal left it, passes, for it may hold the host's registers by now: CR3 alone
/// is left to the guest besides, and loads of it are checked.
pub fn failure_since_last_exit(state: &EntryState) -> &'static str {
    failure(state).unwrap_or("CR0, as the guest wrote it without an exit (APM vol. 2, 15.5.1)")
}

fn failure(state: &EntryState) -> Option<&'static str> {
    CHECKS.iter().find(|(_, passes)| !passes(state)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svm::vmcb::Intercepts2;

    /// A guest in 64-bit mode with nothing wrong.
    fn long_mode() -> Vmcb {
        // SAFETY: zero is a valid value of every field.
        let mut vmcb: Vmcb = unsafe { core::mem::zeroed() };
        vmcb.control.intercepts2 = Intercepts2::new().with_vmrun(true);
        vmcb.control.asid = 1;
        vmcb.save.efer = efer::SVME | efer::LME | efer::LMA;
        vmcb.save.cr0 = cr0::PE | cr0::PG;
        vmcb.save.cr4 = cr4::PAE;
        vmcb.save.cs.attributes = 0x29B;
        vmcb
    }

    #[test]
    fn each_check_names_what_it_found() {
        assert!(first_failure(&EntryState::from(&long_mode())).contains("does not know"));
        type Spoil = fn(&mut Vmcb);
        let spoils: [(Spoil, &str); 15] = [
            (|vmcb| vmcb.save.efer = 0, "SVME"),
            (|vmcb| vmcb.save.cr0 |= cr0::NW, "CR0.NW"),
            (|vmcb| vmcb.save.cr0 |= 1 << 40, "CR0 has"),
            (|vmcb| vmcb.save.cr3 = 1 << 60, "CR3"),
            (|vmcb| vmcb.save.cr4 |= 1 << 40, "CR4 has"),
            (|vmcb| vmcb.save.dr6 = 1 << 40, "DR6"),
            (|vmcb| vmcb.save.dr7 = 1 << 40, "DR7"),
            (|vmcb| vmcb.save.efer |= 1 << 63, "EFER has"),
            (|vmcb| vmcb.save.cr4 = 0, "without CR4.PAE"),
            (|vmcb| vmcb.save.cr0 = cr0::PG, "without CR0.PE"),
            (|vmcb| vmcb.save.cs.attributes |= 0x600, "CS.L"),
            (|vmcb| vmcb.control.intercepts2.set_vmrun(false), "VMRUN"),
            (|vmcb| vmcb.control.msr_permission_map = 1 << 60, "permission map"),
            (|vmcb| vmcb.control.asid = 0, "ASID"),
            (
                |vmcb| {
                    vmcb.control.event_injection = EventInfo::new().with_valid(true).with_kind(1);
                },
                "event",
            ),
        ];
        for (spoil, expected) in spoils {
            let mut vmcb = long_mode();
            spoil(&mut vmcb);
            let found = first_failure(&EntryState::from(&vmcb));
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }

    #[test]
    fn what_the_guest_did_since_the_last_exit_is_named() {
        let mut vmcb = long_mode();
        // The CPU has written the host's registers over the guest's.
        let found = failure_since_last_exit(&EntryState::from(&vmcb));
        assert!(found.contains("CR0, as the guest wrote it"), "{found}");
        // Or it has not.
        vmcb.save.cr0 |= cr0::NW;
        let found = failure_since_last_exit(&EntryState::from(&vmcb));
        assert!(found.contains("CR0.NW without CR0.CD"), "{found}");
    }

    #[test]
    fn addresses_are_as_wide_as_those_of_the_cpu() {
        let mut vmcb = long_mode();
        vmcb.save.cr3 = 1 << 45;
        let state = EntryState::from(&vmcb);
        assert!(first_failure(&state.with_address_bits(46)).contains("does not know"));
        assert!(first_failure(&state.with_address_bits(45)).contains("CR3"));
        assert!(first_failure(&state.with_address_bits(u8::MAX)).contains("does not know"));
    }
}
