// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults in the VMCB that VMRUN's consistency check finds (AMD APM vol. 2, 15.5.1).

use super::{
    vcpu::SvmVcpu,
    vmcb::{EventInfo, Vmcb},
};
use crate::state::{cr0, cr4, efer};

/// A kind of event that does not exist.
const RESERVED_KIND: u8 = 1;
const CODE_LONG: u16 = 1 << 9;
const CODE_DEFAULT_BIG: u16 = 1 << 10;

/// What spoils the VMCB.
type Spoil = fn(&mut Vmcb);

/// Faults by name.
const FAULTS: &[(&str, Spoil)] = &[
    ("svme", |vmcb| vmcb.save.efer &= !efer::SVME),
    ("efer", |vmcb| vmcb.save.efer |= 1 << 63),
    ("caching", |vmcb| vmcb.save.cr0 = vmcb.save.cr0 & !cr0::CD | cr0::NW),
    ("cr0", |vmcb| vmcb.save.cr0 |= 1 << 40),
    ("cr3", |vmcb| vmcb.save.cr3 |= 1 << 60),
    ("cr4", |vmcb| vmcb.save.cr4 |= 1 << 40),
    ("dr6", |vmcb| vmcb.save.dr6 |= 1 << 40),
    ("dr7", |vmcb| vmcb.save.dr7 |= 1 << 40),
    ("paging-extensions", |vmcb| vmcb.save.cr4 &= !cr4::PAE),
    ("paging-without-protection", |vmcb| vmcb.save.cr0 &= !cr0::PE),
    ("code-segment", |vmcb| vmcb.save.cs.attributes |= CODE_LONG | CODE_DEFAULT_BIG),
    ("vmrun-intercept", |vmcb| vmcb.control.intercepts2.set_vmrun(false)),
    ("msr-map", |vmcb| vmcb.control.msr_permission_map = 1 << 60),
    ("io-map", |vmcb| vmcb.control.io_permission_map = 1 << 60),
    ("asid", |vmcb| vmcb.control.asid = 0),
    ("event", |vmcb| {
        vmcb.control.event_injection = EventInfo::new().with_valid(true).with_kind(RESERVED_KIND);
    }),
];

impl SvmVcpu {
    /// Spoils the VMCB for the next entry.
    pub(super) fn spoil(&mut self, name: &str) -> bool {
        let Some((_, spoil)) = FAULTS.iter().find(|(known, _)| *known == name) else {
            return false;
        };
        spoil(self.vmcb_mut());
        true
    }
}
