// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consistency checks of VMRUN, made again to tell which one failed (AMD APM vol. 2,
//! 15.5.1). The CPU itself tells only that one did.

use super::vmcb::{Vmcb, event_kind};
use crate::state::{SegmentAttributes, cr0, cr4, efer};

type Check = (&'static str, fn(&Vmcb) -> bool);

/// Checks in the manual's order; each function is true if the block passes.
const CHECKS: &[Check] = &[
    ("EFER.SVME is clear (APM vol. 2, 15.5.1)", |vmcb| vmcb.save.efer & efer::SVME != 0),
    ("CR0.NW without CR0.CD (APM vol. 2, 15.5.1)", |vmcb| {
        vmcb.save.cr0 & (cr0::CD | cr0::NW) != cr0::NW
    }),
    ("CR0 has a bit above 31 (APM vol. 2, 15.5.1)", |vmcb| vmcb.save.cr0 >> 32 == 0),
    ("CR3 has a reserved bit (APM vol. 2, 15.5.1)", |vmcb| vmcb.save.cr3 >> 52 == 0),
    ("CR4 has a reserved bit (APM vol. 2, 15.5.1)", |vmcb| vmcb.save.cr4 >> 32 == 0),
    ("DR6 has a bit above 31 (APM vol. 2, 15.5.1)", |vmcb| vmcb.save.dr6 >> 32 == 0),
    ("DR7 has a bit above 31 (APM vol. 2, 15.5.1)", |vmcb| vmcb.save.dr7 >> 32 == 0),
    ("EFER has a reserved bit (APM vol. 2, 15.5.1)", |vmcb| vmcb.save.efer & !EFER_DEFINED == 0),
    ("EFER.LME and CR0.PG without CR4.PAE (APM vol. 2, 15.5.1)", |vmcb| {
        !is_long(vmcb) || vmcb.save.cr4 & cr4::PAE != 0
    }),
    ("EFER.LME and CR0.PG without CR0.PE (APM vol. 2, 15.5.1)", |vmcb| {
        !is_long(vmcb) || vmcb.save.cr0 & cr0::PE != 0
    }),
    ("CS.L and CS.D in long mode (APM vol. 2, 15.5.1)", |vmcb| {
        let cs = SegmentAttributes::from_bits(vmcb.save.cs.attributes.into());
        !is_long(vmcb) || !cs.long() || !cs.default_big()
    }),
    ("VMRUN is not intercepted (APM vol. 2, 15.5.1)", |vmcb| vmcb.control.intercepts2.vmrun()),
    ("a permission map lies beyond the physical addresses (APM vol. 2, 15.5.1)", |vmcb| {
        vmcb.control.io_permission_map >> 52 == 0 && vmcb.control.msr_permission_map >> 52 == 0
    }),
    ("the event to inject is none that exists (APM vol. 2, 15.20)", has_possible_event),
    ("the ASID is zero (APM vol. 2, 15.5.1)", |vmcb| vmcb.control.asid != 0),
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

fn is_long(vmcb: &Vmcb) -> bool {
    vmcb.save.efer & efer::LME != 0 && vmcb.save.cr0 & cr0::PG != 0
}

fn has_possible_event(vmcb: &Vmcb) -> bool {
    let event = vmcb.control.event_injection;
    !event.valid()
        || match event.kind() {
            event_kind::EXCEPTION => {
                event.vector() < EXCEPTION_VECTORS && event.vector() != NMI_VECTOR
            }
            event_kind::INTERRUPT | event_kind::NMI | event_kind::SOFTWARE => true,
            _ => false,
        }
}

/// The first check that `vmcb` fails.
pub fn first_failure(vmcb: &Vmcb) -> &'static str {
    let failed = CHECKS.iter().find(|(_, passes)| !passes(vmcb));
    failed.map_or("a consistency check of VMRUN that the VMM does not know", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svm::vmcb::{EventInfo, Intercepts2};

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
        assert!(first_failure(&long_mode()).contains("does not know"));
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
            let found = first_failure(&vmcb);
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }
}
