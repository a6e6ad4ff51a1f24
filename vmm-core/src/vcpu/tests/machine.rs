// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole VM on the mock host and the mock backend.

use host_mock::MockHost;

use super::hardware::{Guest, MockBackend, MockVcpu, Registers};
use crate::{
    EndReason, Exit, GuestPhysAddr,
    state::{Exception, Gpr},
    statistics::{ExitReason, Unclaimed},
    vcpu::Vcpu,
    vm::{Vm, VmBuilder, VmConfig},
};

/// Where tests put code.
pub const CODE: u64 = 0x1000;

/// Where 64-bit code sees guest-physical address zero.
pub const HIGH: u64 = 0xFFFF_8000_0000_0000;

pub struct Machine {
    pub host: &'static MockHost,
    pub vm: Vm<MockVcpu>,
}

/// A VM of `vcpus` with the smallest memory, after `configure` has seen its builder.
pub fn machine_with(vcpus: u32, configure: impl FnOnce(&mut VmBuilder)) -> Machine {
    let host = MockHost::leak(vcpus);
    let config = VmConfig { memory_bytes: crate::memory::MIN_MEMORY, vcpus };
    let mut builder = VmBuilder::new(host, config).unwrap();
    configure(&mut builder);
    let vm = builder.build(&MockBackend { host }).unwrap();
    let mut machine = Machine { host, vm };
    machine.registers().enter_protected_mode(CODE);
    machine
}

/// A VM of one vCPU.
pub fn machine() -> Machine {
    machine_with(1, |_| {})
}

impl Machine {
    /// The bootstrap processor.
    pub fn vcpu(&mut self) -> &mut Vcpu<MockVcpu> {
        &mut self.vm.vcpus()[0]
    }

    /// Has it deal with an exit.
    pub fn handle(&mut self, exit: Exit) -> Result<(), Exception> {
        self.vcpu().handle(exit)
    }

    /// CR8 as its local APIC has it.
    pub fn task_priority_class(&mut self) -> u64 {
        self.vcpu().apic.cr8()
    }

    /// Its registers.
    pub fn registers(&mut self) -> &mut Registers {
        &mut self.vcpu().hardware.registers
    }

    pub fn gpr(&mut self, register: Gpr) -> u64 {
        self.registers().gpr(register)
    }

    pub fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.registers().set_gpr(register, value);
    }

    /// Puts bytes into guest memory.
    pub fn poke(&self, address: u64, bytes: &[u8]) {
        self.vm.memory().write(GuestPhysAddr::new(address), bytes).unwrap();
    }

    /// 64-bit mode at [`HIGH`] + [`CODE`], where the first 2 MiB are mapped.
    pub fn enter_long_mode(&mut self) {
        const TABLES: u64 = 0x8000;
        const PRESENT: u64 = 1;
        const LARGE: u64 = 1 << 7;
        self.poke(TABLES + 256 * 8, &((TABLES + 0x1000) | PRESENT).to_le_bytes());
        self.poke(TABLES + 0x1000, &((TABLES + 0x2000) | PRESENT).to_le_bytes());
        self.poke(TABLES + 0x2000, &(PRESENT | LARGE).to_le_bytes());
        self.registers().enter_long_mode(TABLES, HIGH + CODE);
    }

    /// Runs the bootstrap processor with `guest` until the VM ends.
    pub fn run(&mut self, guest: Guest) -> EndReason {
        let vcpu = self.vcpu();
        vcpu.hardware.guest = guest;
        vcpu.run();
        assert!(!vcpu.hardware.loaded);
        self.ended().expect("the loop runs until the VM ends")
    }

    pub fn ended(&self) -> Option<EndReason> {
        self.vm.control().ended().cloned()
    }

    pub fn exits(&mut self, reason: ExitReason) -> u64 {
        self.vcpu().statistics().exits(reason).count
    }

    pub fn unclaimed(&mut self, kind: Unclaimed) -> u64 {
        self.vcpu().statistics().unclaimed(kind)
    }
}

/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6E0;
/// Registers of the local APIC in x2APIC mode.
pub const X2APIC_ICR: u32 = 0x830;
pub const X2APIC_LVT_TIMER: u32 = 0x832;
pub const X2APIC_INITIAL_COUNT: u32 = 0x838;
pub const X2APIC_DIVIDE: u32 = 0x83E;

impl Registers {
    /// Sets the registers up for a WRMSR, which exits.
    pub fn wrmsr(&mut self, msr: u32, value: u64) -> Exit {
        self.set_gpr(Gpr::Rcx, msr.into());
        self.set_gpr(Gpr::Rax, value & 0xFFFF_FFFF);
        self.set_gpr(Gpr::Rdx, value >> 32);
        self.next_rip = Some(CODE);
        Exit::WriteMsr
    }
}

/// Switches a vCPU's local APIC on, in x2APIC mode.
pub fn enable_x2apic(vcpu: &mut Vcpu<MockVcpu>) {
    const IA32_APIC_BASE: u32 = 0x1B;
    const ENABLED_X2APIC: u64 = 0xC00;
    vcpu.apply_firmware_defaults();
    let bootstrap = u64::from(vcpu.index == 0) << 8;
    let exit =
        vcpu.hardware.registers.wrmsr(IA32_APIC_BASE, 0xFEE0_0000 | ENABLED_X2APIC | bootstrap);
    vcpu.handle(exit).unwrap();
}
