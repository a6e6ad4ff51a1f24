// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a vCPU makes of exits, and what it hands the next entry, with VMX instructions that work on
//! ordinary memory.

mod apic;
mod cost;
mod emulated;
mod hidden;
mod length;
mod machine_check;
mod nmi;
mod refused;
mod shadow;

use host_iface::HostPhysAddr;

use super::{
    CapabilityMsrs,
    capability::samples::{TIGER_LAKE, without},
    cpu::Shared,
    decode::ExitReasonField,
    field::Field,
    instruction,
    vcpu::VmxVcpu,
};
use crate::{
    Exit,
    apic::ApicMode,
    backend::{ApicSetup, ApicWindow, Translation, VcpuBackend, VcpuSetup},
};

/// A vCPU whose VMCS is current, after its first entry.
fn entered() -> VmxVcpu {
    entered_on(TIGER_LAKE)
}

/// The same on a CPU that offers `msrs`.
fn entered_on(msrs: CapabilityMsrs) -> VmxVcpu {
    entered_among(msrs, false)
}

/// The same, of a VM in which it may spin.
fn entered_among(msrs: CapabilityMsrs, has_siblings: bool) -> VmxVcpu {
    let window =
        ApicWindow { nested_root: HostPhysAddr::new(0x2000), page: HostPhysAddr::new(0x3000) };
    let setup = VcpuSetup {
        translation: Translation::Nested(HostPhysAddr::new(0x1000)),
        tsc_offset: 0,
        apic: ApicSetup::Hardware { window: Some(window) },
        has_siblings,
    };
    let mut vcpu = VmxVcpu::new(Shared::sample(msrs), setup).unwrap();
    // SAFETY: in tests the VMX instructions work on ordinary memory.
    assert!(unsafe { vcpu.vmcs.load() });
    vcpu.vmcs.write_back();
    vcpu
}

fn set_hardware(field: Field, value: u64) {
    // SAFETY: as above.
    unsafe { instruction::vmwrite(field.encoding(), value) };
}

fn exit(vcpu: &mut VmxVcpu, fields: &[(Field, u64)]) -> Exit {
    for (field, value) in fields {
        set_hardware(*field, *value);
    }
    vcpu.vmcs.guest_exited();
    vcpu.note_interrupts();
    let field = ExitReasonField::from_bits(vcpu.vmcs.read(Field::ExitReason) as u32);
    vcpu.basic_reason = field.basic();
    vcpu.exit_of(field)
}

/// What the fields hold that the next entry takes.
fn hardware(vcpu: &mut VmxVcpu, field: Field) -> u64 {
    vcpu.vmcs.write_back();
    // SAFETY: as above.
    unsafe { instruction::vmread(field.encoding()) }.unwrap_or(0)
}

/// A CPU whose APIC virtualization ends with the TPR shadow.
const PLAIN: CapabilityMsrs = CapabilityMsrs {
    secondary: without(TIGER_LAKE.secondary, 1 | 1 << 4 | 1 << 8 | 1 << 9),
    ..TIGER_LAKE
};

#[test]
fn spinning_is_limited_where_there_is_another_to_wait_for() {
    const PAUSE_LOOP: u64 = 1 << 10;
    let unable = CapabilityMsrs { secondary: without(TIGER_LAKE.secondary, 1 << 10), ..TIGER_LAKE };
    for (msrs, limits, control, window) in
        [(TIGER_LAKE, true, PAUSE_LOOP, 1 << 20), (TIGER_LAKE, false, 0, 0), (unable, true, 0, 0)]
    {
        let mut vcpu = entered_among(msrs, limits);
        let word = hardware(&mut vcpu, Field::SecondaryControls);
        assert_eq!(word & PAUSE_LOOP, control);
        assert_eq!(hardware(&mut vcpu, Field::PauseLoopWindow), window);
        // The mode of the local APIC, which has controls in the same word, changes nothing.
        vcpu.set_apic_mode(ApicMode::X2Apic, true);
        let word = hardware(&mut vcpu, Field::SecondaryControls);
        assert_eq!(word & PAUSE_LOOP, control);
    }
}
