// SPDX-License-Identifier: MIT OR Apache-2.0
//! The builder: what it refuses, and that everything goes back to the host.

use std::sync::Arc;

use host_mock::MockHost;

use super::{BuildError, MAX_VCPUS, Vm, VmBuilder, VmConfig};
use crate::{
    AccessWidth, GuestPhysAddr, MAX_TIMERS, MmioDevice, PAGE_SIZE, PortDevice,
    bus::ClaimError,
    memory::MIN_MEMORY,
    vcpu::tests::hardware::{MockBackend, MockVcpu},
};

struct Device(&'static str);

impl PortDevice for Device {
    fn name(&self) -> &str {
        self.0
    }
    fn read_port(&self, _: u16, _: AccessWidth) -> Option<u32> {
        None
    }
    fn write_port(&self, _: u16, _: AccessWidth, _: u32) -> bool {
        false
    }
}

impl MmioDevice for Device {
    fn name(&self) -> &str {
        self.0
    }
    fn read_mmio(&self, _: u64, _: AccessWidth) -> Option<u64> {
        None
    }
    fn write_mmio(&self, _: u64, _: AccessWidth, _: u64) -> bool {
        false
    }
}

const SMALL: VmConfig = VmConfig { memory_bytes: 2 * MIN_MEMORY, vcpus: 2 };

fn build(host: &'static MockHost, config: VmConfig) -> Result<Vm<MockVcpu>, BuildError> {
    VmBuilder::new(host, config)?.build(&MockBackend { host })
}

#[test]
fn refuses_what_is_out_of_range() {
    let host = MockHost::leak(1);
    for vcpus in [0, MAX_VCPUS + 1, u32::MAX] {
        let result = build(host, VmConfig { vcpus, ..SMALL });
        assert_eq!(result.err(), Some(BuildError::VcpuCount(vcpus)));
    }
    for memory_bytes in [0, MIN_MEMORY - PAGE_SIZE, MIN_MEMORY + 1, 1 << 47, u64::MAX] {
        let result = build(host, VmConfig { memory_bytes, ..SMALL });
        assert_eq!(result.err(), Some(BuildError::MemorySize(memory_bytes)));
    }
    assert_eq!(host.live_runs(), 0);
}

#[test]
fn everything_goes_back_when_the_vm_is_dropped() {
    let host = MockHost::leak(1);
    let mut vm = build(host, VmConfig { vcpus: MAX_VCPUS, ..SMALL }).unwrap();
    assert_eq!(vm.vcpus().len(), MAX_VCPUS as usize);
    assert!(vm.page_table_bytes() >= 3 * PAGE_SIZE);
    assert_eq!(vm.control_bytes(), u64::from(MAX_VCPUS) * PAGE_SIZE);
    assert!(host.live_runs() > 0);
    let vcpus = vm.take_vcpus();
    drop(vm);
    assert!(host.live_runs() > 0, "vCPUs that are out keep the memory");
    drop(vcpus);
    assert_eq!(host.live_runs(), 0);
}

/// Memory that cannot be had whole is had in halves, so that some failures are made up for.
#[test]
fn an_allocation_that_fails_leaves_nothing_behind() {
    let config = VmConfig { memory_bytes: 4 * MIN_MEMORY, ..SMALL };
    let bytes = build(MockHost::leak(1), config).unwrap().memory().bytes();
    let mut refused = 0;
    for n in 0..16 {
        let host = MockHost::leak(1);
        host.fail_allocation_in(n);
        match build(host, config) {
            Ok(vm) => assert_eq!(vm.memory().bytes(), bytes),
            Err(BuildError::Host { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        assert_eq!(host.live_runs(), 0, "allocation {n}");
    }
    assert!((7..16).contains(&refused), "memory, tables and control blocks are had apart");
}

#[test]
fn devices_cannot_have_each_others_ranges() {
    let host = MockHost::leak(1);
    let mut builder = VmBuilder::new(host, SMALL).unwrap();
    builder.claim_ports(0x60..=0x64, Arc::new(Device("keyboard"))).unwrap();
    let error = builder.claim_ports(0x64..=0x64, Arc::new(Device("other"))).unwrap_err();
    assert_eq!(error.to_string(), "other cannot have 0x64-0x64: keyboard is there");
    let at = GuestPhysAddr::new(0xFEC0_0000);
    builder.claim_mmio(at, 0x1000, Arc::new(Device("ioapic"))).unwrap();
    let error = builder.claim_mmio(at, 1, Arc::new(Device("other"))).unwrap_err();
    assert_eq!(error.to_string(), "other cannot have 0xfec00000-0xfec00000: ioapic is there");
}

#[test]
fn a_released_range_can_be_claimed_again() {
    let mut builder = VmBuilder::new(MockHost::leak(1), SMALL).unwrap();
    let at = GuestPhysAddr::new(0xFEC0_0000);
    for _ in 0..2 {
        builder.claim_ports(0x40..=0x43, Arc::new(Device("pit"))).unwrap();
        builder.claim_mmio(at, 0x1000, Arc::new(Device("ioapic"))).unwrap();
        assert!(builder.release_ports(0x42) && builder.release_mmio(at));
    }
    assert!(!builder.release_ports(0x42) && !builder.release_mmio(at));
}

#[test]
fn devices_cannot_lie_in_memory() {
    let host = MockHost::leak(1);
    let mut builder = VmBuilder::new(host, SMALL).unwrap();
    let end = SMALL.memory_bytes;
    let mut claim =
        |start, bytes| builder.claim_mmio(GuestPhysAddr::new(start), bytes, Arc::new(Device("d")));
    for (start, bytes) in [(0, 1), (0x9_FFFF, 2), (end - 1, 1), (0xA_0000, u64::MAX), (end, 0)] {
        let result = claim(start, bytes);
        let bad = matches!(result, Err(BuildError::Claim(ClaimError::BadRange { .. })));
        assert!(bad, "{start:#x} {bytes:#x}: {result:?}");
    }
    claim(0xA_0000, 0x2_0000).unwrap();
    claim(end, 1).unwrap();
}

/// The local APICs would answer, and the device never hear of it.
#[test]
fn devices_cannot_lie_on_the_registers_of_the_local_apics() {
    let mut builder = VmBuilder::new(MockHost::leak(1), SMALL).unwrap();
    let mut claim =
        |start, bytes| builder.claim_mmio(GuestPhysAddr::new(start), bytes, Arc::new(Device("d")));
    for (start, bytes) in [(0xFEE0_0000, 1), (0xFEE0_0FFF, 1), (0xFED0_0000, 0x20_0000)] {
        let error = claim(start, bytes).unwrap_err();
        assert!(matches!(&error, BuildError::Claim(ClaimError::Overlap { .. })), "{error}");
        assert!(error.to_string().ends_with("local APIC is there"), "{error}");
    }
    claim(0xFED0_0000, 0x10_0000).unwrap();
    claim(0xFEE0_1000, 0x1000).unwrap();
}

#[test]
fn timers_run_out() {
    let host = MockHost::leak(1);
    let mut builder = VmBuilder::new(host, SMALL).unwrap();
    for _ in 0..MAX_TIMERS {
        builder.timer().unwrap();
    }
    assert!(matches!(builder.timer(), Err(BuildError::TooManyTimers)));
}
