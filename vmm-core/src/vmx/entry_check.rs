// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks that a CPU makes of a guest's state at entry, made again to tell which one
//! failed (Intel SDM vol. 3, 26.3.1). The CPU itself tells only that one did.

use super::{
    capability::Capabilities,
    decode::{EventField, event_kind},
    field::{Field, SegmentFields},
    interruptibility::{BLOCKED_BY_NMI, SHADOW},
    segment,
    vmcs::Vmcs,
};
use crate::{
    GuestVirtAddr,
    state::{SegmentAttributes, SegmentRegister, cr0, cr4, efer, rflags},
};

/// The guest's state, and what the checks depend on beside it.
struct State<'a> {
    vmcs: &'a Vmcs,
    capabilities: &'a Capabilities,
}

/// True if the CPU can enter a guest with these segments. It executes no guest whose segments
/// are those of real mode or of the moment after it, unless it is unrestricted.
pub fn segments_fit(vmcs: &Vmcs, capabilities: &Capabilities) -> bool {
    let state = State { vmcs, capabilities };
    state.selectors()
        && state.segment_bases()
        && state.virtual_8086_segments()
        && state.code_segment()
        && state.stack_segment()
        && state.data_segments()
        && state.system_segments()
}

type Check<'a> = (&'static str, fn(&State<'a>) -> bool);

/// Checks in the manual's order; each function is true if the state passes.
const fn checks<'a>() -> [Check<'a>; 18] {
    [
        ("CR0 has a bit that VMX fixes otherwise (SDM vol. 3, 26.3.1.1)", State::cr0),
        ("CR0.PG without CR0.PE (SDM vol. 3, 26.3.1.1)", State::paging_is_protected),
        ("CR4 has a bit that VMX fixes otherwise (SDM vol. 3, 26.3.1.1)", State::cr4),
        ("CR3 lies beyond the physical addresses (SDM vol. 3, 26.3.1.1)", State::cr3),
        ("IA32_DEBUGCTL or DR7 has a reserved bit (SDM vol. 3, 26.3.1.1)", State::debug_controls),
        ("SYSENTER_ESP or SYSENTER_EIP is not canonical (SDM vol. 3, 26.3.1.1)", State::sysenter),
        ("IA32_PAT has an unknown memory type (SDM vol. 3, 26.3.1.1)", State::pat),
        ("EFER does not fit CR0, CR4 and the entry controls (SDM vol. 3, 26.3.1.1)", State::mode),
        ("a selector of TR, LDTR or SS (SDM vol. 3, 26.3.1.2)", State::selectors),
        ("the base address of a segment (SDM vol. 3, 26.3.1.2)", State::segment_bases),
        ("a segment of virtual-8086 mode (SDM vol. 3, 26.3.1.2)", State::virtual_8086_segments),
        ("the access rights of CS (SDM vol. 3, 26.3.1.2)", State::code_segment),
        ("the access rights of SS (SDM vol. 3, 26.3.1.2)", State::stack_segment),
        ("the access rights of DS, ES, FS or GS (SDM vol. 3, 26.3.1.2)", State::data_segments),
        ("the access rights of TR or LDTR (SDM vol. 3, 26.3.1.2)", State::system_segments),
        ("GDTR or IDTR (SDM vol. 3, 26.3.1.3)", State::descriptor_tables),
        ("RIP or RFLAGS (SDM vol. 3, 26.3.1.4)", State::rip_and_rflags),
        (
            "activity, interruptibility or pending exceptions (SDM vol. 3, 26.3.1.5)",
            State::activity,
        ),
    ]
}

/// The first check that the state in `vmcs` fails.
pub fn first_failure(vmcs: &Vmcs, capabilities: &Capabilities) -> &'static str {
    let state = State { vmcs, capabilities };
    let failed = checks().into_iter().find(|(_, passes)| !passes(&state));
    failed.map_or("a check of the guest's state that the VMM does not know", |(name, _)| name)
}

/// Segment types (Intel SDM vol. 3, 3.4.5.1 and 3.5).
mod kind {
    pub const DATA_ACCESSED: u8 = 3;
    pub const STACK_EXPAND_DOWN: u8 = 7;
    pub const LDT: u8 = 2;
    pub const BUSY_TSS_16: u8 = 3;
    pub const BUSY_TSS: u8 = 11;
    pub const ACCESSED: u8 = 1;
    pub const WRITABLE_OR_READABLE: u8 = 2;
    pub const CODE: u8 = 8;
    pub const CONFORMING: u8 = 4;
}

/// Table indicator of a selector.
const IN_LDT: u64 = 4;
/// Requested privilege level of a selector.
const REQUESTED_LEVEL: u64 = 3;

const DATA: [SegmentRegister; 4] =
    [SegmentRegister::Ds, SegmentRegister::Es, SegmentRegister::Fs, SegmentRegister::Gs];
const MEMORY: [SegmentRegister; 6] = [
    SegmentRegister::Cs,
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Es,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
];

fn is_canonical(address: u64) -> bool {
    GuestVirtAddr::new(address).is_canonical()
}

impl State<'_> {
    fn get(&self, field: Field) -> u64 {
        self.vmcs.read(field)
    }

    fn has(&self, field: Field, bits: u64) -> bool {
        self.get(field) & bits == bits
    }

    fn is_long(&self) -> bool {
        use x86::vmx::vmcs::control::EntryControls;

        self.has(Field::EntryControls, EntryControls::IA32E_MODE_GUEST.bits().into())
    }

    fn is_virtual_8086(&self) -> bool {
        self.has(Field::GuestRflags, rflags::VM)
    }

    fn selector(&self, register: SegmentRegister) -> u64 {
        self.get(SegmentFields::of(register).selector)
    }

    fn base(&self, register: SegmentRegister) -> u64 {
        self.get(SegmentFields::of(register).base)
    }

    fn limit(&self, register: SegmentRegister) -> u64 {
        self.get(SegmentFields::of(register).limit)
    }

    fn rights(&self, register: SegmentRegister) -> u64 {
        self.get(SegmentFields::of(register).rights)
    }

    fn attributes(&self, register: SegmentRegister) -> SegmentAttributes {
        segment::from_rights(self.rights(register))
    }

    fn is_usable(&self, register: SegmentRegister) -> bool {
        self.rights(register) & segment::UNUSABLE == 0
    }

    fn cr0(&self) -> bool {
        let msrs = &self.capabilities.msrs;
        let unchecked = cr0::NW | cr0::CD;
        let value = self.get(Field::GuestCr0);
        let ones = self.capabilities.fixed_cr0() & !unchecked;
        value & ones == ones && value & !(msrs.cr0_fixed1 | unchecked) == 0
    }

    fn paging_is_protected(&self) -> bool {
        !self.has(Field::GuestCr0, cr0::PG) || self.has(Field::GuestCr0, cr0::PE)
    }

    fn cr4(&self) -> bool {
        let msrs = &self.capabilities.msrs;
        let value = self.get(Field::GuestCr4);
        value & msrs.cr4_fixed0 == msrs.cr4_fixed0 && value & !msrs.cr4_fixed1 == 0
    }

    fn cr3(&self) -> bool {
        let bits = u32::from(self.capabilities.msrs.physical_address_bits);
        self.get(Field::GuestCr3).checked_shr(bits).unwrap_or(0) == 0
    }

    fn debug_controls(&self) -> bool {
        const DEBUGCTL_RESERVED: u64 = !0xDFC3;
        self.get(Field::GuestDebugCtl) & DEBUGCTL_RESERVED == 0
            && self.get(Field::GuestDr7) >> 32 == 0
    }

    fn sysenter(&self) -> bool {
        is_canonical(self.get(Field::SysenterEsp)) && is_canonical(self.get(Field::SysenterEip))
    }

    fn pat(&self) -> bool {
        !self.capabilities.switches_pat()
            || crate::msr::validate_pat(self.get(Field::GuestPat)).is_ok()
    }

    fn mode(&self) -> bool {
        const EFER_DEFINED: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE;
        let value = self.get(Field::GuestEfer);
        let (lma, lme) = (value & efer::LMA != 0, value & efer::LME != 0);
        let paging = self.has(Field::GuestCr0, cr0::PG);
        let needs_paging = !self.is_long() || paging && self.has(Field::GuestCr4, cr4::PAE);
        let no_pcid = self.is_long() || !self.has(Field::GuestCr4, cr4::PCIDE);
        value & !EFER_DEFINED == 0
            && lma == self.is_long()
            && (!paging || lma == lme)
            && needs_paging
            && no_pcid
    }

    /// Unless the guest is unrestricted, the selectors of CS and SS agree in their privilege
    /// level.
    fn selectors(&self) -> bool {
        let ldtr_usable = self.is_usable(SegmentRegister::Ldtr);
        let same_level = (self.selector(SegmentRegister::Ss) ^ self.selector(SegmentRegister::Cs))
            & REQUESTED_LEVEL
            == 0;
        (self.checks_little() || same_level)
            && self.selector(SegmentRegister::Tr) & IN_LDT == 0
            && !(ldtr_usable && self.selector(SegmentRegister::Ldtr) & IN_LDT != 0)
    }

    /// Some checks are not made of unrestricted guests and of virtual-8086 mode.
    fn checks_little(&self) -> bool {
        self.capabilities.has_unrestricted_guest() || self.is_virtual_8086()
    }

    fn requested_level(&self, register: SegmentRegister) -> u64 {
        self.selector(register) & REQUESTED_LEVEL
    }

    fn segment_bases(&self) -> bool {
        let canonical = [SegmentRegister::Tr, SegmentRegister::Fs, SegmentRegister::Gs]
            .iter()
            .all(|register| is_canonical(self.base(*register)));
        let ldtr = !self.is_usable(SegmentRegister::Ldtr)
            || is_canonical(self.base(SegmentRegister::Ldtr));
        let narrow = [SegmentRegister::Ss, SegmentRegister::Ds, SegmentRegister::Es]
            .iter()
            .all(|register| !self.is_usable(*register) || self.base(*register) >> 32 == 0);
        canonical && ldtr && narrow && self.base(SegmentRegister::Cs) >> 32 == 0
    }

    fn virtual_8086_segments(&self) -> bool {
        const RIGHTS: u64 = 0xF3;
        !self.is_virtual_8086()
            || MEMORY.iter().all(|register| {
                self.base(*register) == self.selector(*register) << 4
                    && self.limit(*register) == 0xFFFF
                    && self.rights(*register) == RIGHTS
            })
    }

    /// What holds for every usable segment: it is present, has no reserved bits, and its limit
    /// fits its granularity.
    fn is_well_formed(&self, register: SegmentRegister, is_system: bool) -> bool {
        const RESERVED: u64 = !(0xFFFF | segment::UNUSABLE) | 0xF00;
        let attributes = self.attributes(register);
        let limit = self.limit(register);
        let low_ones = limit & 0xFFF == 0xFFF;
        let high_zeroes = limit >> 20 == 0;
        attributes.present()
            && attributes.code_or_data() != is_system
            && self.rights(register) & RESERVED == 0
            && if attributes.granularity() { low_ones } else { high_zeroes }
    }

    fn code_segment(&self) -> bool {
        if self.is_virtual_8086() {
            return true;
        }
        let cs = self.attributes(SegmentRegister::Cs);
        let ss = self.attributes(SegmentRegister::Ss);
        let is_accessed_code = cs.kind() & (kind::CODE | kind::ACCESSED) == 9;
        let privilege = match (cs.kind(), cs.kind() & kind::CONFORMING != 0) {
            (kind::DATA_ACCESSED, _) => cs.dpl() == 0,
            (_, false) => cs.dpl() == ss.dpl(),
            (_, true) => cs.dpl() <= ss.dpl(),
        };
        let is_data = cs.kind() == kind::DATA_ACCESSED && self.checks_little();
        (is_accessed_code || is_data)
            && privilege
            && self.is_well_formed(SegmentRegister::Cs, false)
            && !(self.is_long() && cs.long() && cs.default_big())
    }

    fn stack_segment(&self) -> bool {
        if self.is_virtual_8086() {
            return true;
        }
        let (cs, ss) = (self.attributes(SegmentRegister::Cs), self.attributes(SegmentRegister::Ss));
        let unprivileged = ss.dpl() != 0;
        let must_be_privileged =
            cs.kind() == kind::DATA_ACCESSED || !self.has(Field::GuestCr0, cr0::PE);
        let kind_fits = [kind::DATA_ACCESSED, kind::STACK_EXPAND_DOWN].contains(&ss.kind());
        let level_fits = self.checks_little()
            || u64::from(ss.dpl()) == self.requested_level(SegmentRegister::Ss);
        !(unprivileged && must_be_privileged)
            && level_fits
            && (!self.is_usable(SegmentRegister::Ss)
                || kind_fits && self.is_well_formed(SegmentRegister::Ss, false))
    }

    fn data_segments(&self) -> bool {
        self.is_virtual_8086()
            || DATA.iter().all(|register| {
                let attributes = self.attributes(*register);
                let kind = attributes.kind();
                let readable = kind & kind::CODE == 0 || kind & kind::WRITABLE_OR_READABLE != 0;
                let conforming = kind & kind::CODE != 0 && kind & kind::CONFORMING != 0;
                let level_fits = self.checks_little()
                    || conforming
                    || u64::from(attributes.dpl()) >= self.requested_level(*register);
                !self.is_usable(*register)
                    || kind & kind::ACCESSED != 0
                        && readable
                        && level_fits
                        && self.is_well_formed(*register, false)
            })
    }

    fn system_segments(&self) -> bool {
        let tr = self.attributes(SegmentRegister::Tr);
        let tr_fits =
            tr.kind() == kind::BUSY_TSS || tr.kind() == kind::BUSY_TSS_16 && !self.is_long();
        let ldtr = self.attributes(SegmentRegister::Ldtr);
        let ldtr_fits = !self.is_usable(SegmentRegister::Ldtr)
            || ldtr.kind() == kind::LDT && self.is_well_formed(SegmentRegister::Ldtr, true);
        tr_fits
            && self.is_usable(SegmentRegister::Tr)
            && self.is_well_formed(SegmentRegister::Tr, true)
            && ldtr_fits
    }

    fn descriptor_tables(&self) -> bool {
        [(Field::GdtrBase, Field::GdtrLimit), (Field::IdtrBase, Field::IdtrLimit)]
            .iter()
            .all(|(base, limit)| is_canonical(self.get(*base)) && self.get(*limit) >> 16 == 0)
    }

    fn rip_and_rflags(&self) -> bool {
        const RFLAGS_RESERVED: u64 = !0x3F_7FD7 | 1 << 3 | 1 << 5 | 1 << 15;
        let rip = self.get(Field::GuestRip);
        let flags = self.get(Field::GuestRflags);
        let is_64_bit = self.is_long() && self.attributes(SegmentRegister::Cs).long();
        let virtual_8086_fits =
            !self.is_virtual_8086() || !self.is_long() && self.has(Field::GuestCr0, cr0::PE);
        let event = EventField::from_bits(self.get(Field::EntryEvent) as u32);
        let interrupt = event.valid() && event.kind() == event_kind::INTERRUPT;
        (if is_64_bit { is_canonical(rip) } else { rip >> 32 == 0 })
            && flags & RFLAGS_RESERVED == 0
            && flags & rflags::FIXED != 0
            && virtual_8086_fits
            && (!interrupt || flags & rflags::IF != 0)
    }

    fn activity(&self) -> bool {
        const BLOCKED_BY_STI: u64 = 1;
        const KNOWN: u64 = SHADOW | BLOCKED_BY_NMI;
        const PENDING_RESERVED: u64 = !0x1_500F;
        const SINGLE_STEP: u64 = 1 << 14;
        let state = self.get(Field::Interruptibility);
        let flags = self.get(Field::GuestRflags);
        let sti = state & BLOCKED_BY_STI != 0;
        let event = EventField::from_bits(self.get(Field::EntryEvent) as u32);
        let blocks_event = event.valid()
            && match event.kind() {
                event_kind::INTERRUPT => state & SHADOW != 0,
                event_kind::NMI => state & (SHADOW & !BLOCKED_BY_STI | BLOCKED_BY_NMI) != 0,
                _ => false,
            };
        let pending = self.get(Field::PendingDebug);
        let steps = pending & SINGLE_STEP != 0;
        let step_fits = state & SHADOW == 0 || steps == (flags & rflags::TF != 0);
        self.get(Field::GuestActivity) == 0
            && state & !KNOWN == 0
            && state & SHADOW != SHADOW
            && !(sti && flags & rflags::IF == 0)
            && !blocks_event
            && pending & PENDING_RESERVED == 0
            && step_fits
            && self.get(Field::LinkPointer) == u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;
    use crate::vmx::capability::samples::TIGER_LAKE;

    fn capabilities() -> Capabilities {
        Capabilities::new(TIGER_LAKE).unwrap()
    }

    /// A guest in 64-bit mode with nothing wrong.
    fn long_mode() -> Vmcs {
        let mut vmcs = Vmcs::new(MockHost::leak(1), 1, !0).unwrap();
        let capabilities = capabilities();
        for register in MEMORY {
            let fields = SegmentFields::of(register);
            vmcs.write(fields.limit, 0xFFFF_FFFF);
            vmcs.write(
                fields.rights,
                if register == SegmentRegister::Cs { 0xA09B } else { 0xC093 },
            );
        }
        for (field, value) in [
            (Field::GuestCr0, capabilities.real_cr0(cr0::PE | cr0::PG | cr0::ET)),
            (Field::GuestCr4, capabilities.real_cr4(cr4::PAE)),
            (Field::GuestEfer, efer::LME | efer::LMA),
            (Field::EntryControls, 1 << 9),
            (Field::GuestPat, crate::msr::PAT_RESET),
            (Field::GuestRflags, rflags::FIXED),
            (Field::TrLimit, 0x67),
            (Field::TrRights, 0x8B),
            (Field::LdtrRights, segment::UNUSABLE),
            (Field::LinkPointer, u64::MAX),
            (Field::GuestDr7, 0x400),
        ] {
            vmcs.write(field, value);
        }
        vmcs
    }

    #[test]
    fn a_sound_state_passes_all_checks() {
        let (vmcs, capabilities) = (long_mode(), capabilities());
        let state = State { vmcs: &vmcs, capabilities: &capabilities };
        for (name, passes) in checks() {
            assert!(passes(&state), "{name}");
        }
        assert!(first_failure(&vmcs, &capabilities).contains("does not know"));
    }

    #[test]
    fn segments_of_real_mode_do_not_fit() {
        let capabilities = capabilities();
        let mut vmcs = long_mode();
        assert!(segments_fit(&vmcs, &capabilities));
        // What else is wrong is of no account here.
        vmcs.write(Field::GuestCr3, 1 << 60);
        assert!(segments_fit(&vmcs, &capabilities));

        // As at the moment after CR0.PE was set: no protected-mode code segment was loaded yet.
        let code = SegmentFields::of(SegmentRegister::Cs);
        vmcs.write(code.rights, 0x93);
        assert!(!segments_fit(&vmcs, &capabilities));
        vmcs.write(code.rights, 0xA09B);
        assert!(segments_fit(&vmcs, &capabilities));

        for register in MEMORY {
            let fields = SegmentFields::of(register);
            let mut vmcs = long_mode();
            // Byte granularity with a limit that only pages can have.
            vmcs.write(fields.rights, vmcs.read(fields.rights) & !0x8000);
            vmcs.write(fields.limit, 0xFFFF_F000);
            assert!(!segments_fit(&vmcs, &capabilities), "{register:?}");
        }
    }

    #[test]
    fn each_check_names_what_it_found() {
        let not_canonical = 0x8000_0000_0000_0000;
        for (field, value, expected) in [
            (Field::GuestCr0, 0, "CR0 has a bit"),
            (Field::GuestCr0, 0x8000_0030, "CR0.PG without"),
            (Field::GuestCr4, 0, "CR4"),
            (Field::GuestCr3, 1 << 60, "CR3"),
            (Field::GuestDr7, 1 << 40, "DR7"),
            (Field::SysenterEip, not_canonical, "SYSENTER"),
            (Field::GuestPat, 2, "PAT"),
            (Field::GuestEfer, efer::LME, "EFER"),
            (Field::TrSelector, 4, "selector"),
            (Field::GsBase, not_canonical, "base address"),
            (Field::CsRights, 0xA093 | 0x60, "access rights of CS"),
            (Field::SsRights, 0xC091, "access rights of SS"),
            (Field::DsRights, 0xC090, "access rights of DS"),
            (Field::TrRights, 0x89, "access rights of TR"),
            (Field::IdtrLimit, 0x1_0000, "IDTR"),
            (Field::GuestRip, not_canonical, "RIP"),
            (Field::GuestRflags, 0, "RFLAGS"),
            (Field::GuestActivity, 1, "activity"),
            (Field::Interruptibility, 1, "interruptibility"),
            (Field::LinkPointer, 0, "activity"),
        ] {
            let mut vmcs = long_mode();
            vmcs.write(field, value);
            let found = first_failure(&vmcs, &capabilities());
            assert!(found.contains(expected), "{field:?}: {found}");
        }
    }

    #[test]
    fn virtual_8086_mode_has_segments_of_its_own() {
        let mut vmcs = long_mode();
        for (field, value) in [
            (Field::EntryControls, 0),
            (Field::GuestEfer, 0),
            (Field::GuestRflags, rflags::FIXED | rflags::VM),
        ] {
            vmcs.write(field, value);
        }
        assert!(first_failure(&vmcs, &capabilities()).contains("virtual-8086"));
        for register in MEMORY {
            let fields = SegmentFields::of(register);
            vmcs.write(fields.selector, 0x1000);
            vmcs.write(fields.base, 0x1_0000);
            vmcs.write(fields.limit, 0xFFFF);
            vmcs.write(fields.rights, 0xF3);
        }
        assert!(first_failure(&vmcs, &capabilities()).contains("does not know"));
    }
}
