// SPDX-License-Identifier: MIT OR Apache-2.0
//! A vCPU for tests: its control block can be prepared and looked at, but not entered.

use host_iface::HostPhysAddr;
use host_mock::MockHost;

use super::{capability::Capabilities, cpu::Svm, vcpu::SvmVcpu};
use crate::backend::{ApicSetup, Backend, Translation, VcpuSetup};

/// One with nested paging on a CPU with these `capabilities`, alone or among others.
pub fn create(capabilities: Capabilities, has_siblings: bool) -> SvmVcpu {
    let setup = VcpuSetup {
        translation: Translation::Nested(HostPhysAddr::new(0x1000)),
        tsc_offset: 0,
        apic: ApicSetup::Emulated,
        has_siblings,
    };
    let svm = Svm::with(MockHost::leak(1), capabilities);
    svm.create_vcpu(setup).expect("the host has memory")
}
