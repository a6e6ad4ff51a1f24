// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the emulator makes of a state that can be entered can be entered again.

use super::entered_on;
use crate::{
    backend::VcpuBackend,
    emulate::{
        Outcome,
        tests::{
            hostile,
            machine::{DATA, Machine, TestCpu, code, data, flat},
            random::Random,
        },
    },
    state::{DescriptorTable, Gpr, Segment, SegmentAttributes, SegmentRegister, efer, rflags},
    vmx::{capability::samples::PENRYN, entry_check::first_failure, vcpu::VmxVcpu},
};

const GDT: u64 = DATA + 0x1000;

const DATA_SEGMENTS: [SegmentRegister; 5] = [
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Es,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
];

const SEGMENTS: [SegmentRegister; 8] = [
    SegmentRegister::Es,
    SegmentRegister::Cs,
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
    SegmentRegister::Ldtr,
    SegmentRegister::Tr,
];

/// Gives the vCPU the registers of `cpu`.
fn load(vcpu: &mut VmxVcpu, cpu: &TestCpu) {
    for register in SEGMENTS {
        vcpu.set_segment(register, cpu.segments[register as usize]);
    }
    vcpu.set_control_registers(cpu.control);
    vcpu.set_descriptor_tables(cpu.gdtr, cpu.idtr);
    vcpu.set_rip(cpu.rip);
    vcpu.set_rflags(cpu.rflags);
    match cpu.shadow {
        Some(shadow) => vcpu.begin_interrupt_shadow(shadow),
        None => vcpu.clear_interrupt_shadow(),
    }
}

/// Code of 64, 32 and 16 bits, data, and a TSS and an LDT.
const DESCRIPTORS: [u64; 9] = [
    0x00AF_9A00_0000_FFFF,
    0x00AF_FA00_0000_FFFF,
    0x00CF_9A00_0000_FFFF,
    0x00CF_FA00_0000_FFFF,
    0x00CF_9200_0000_FFFF,
    0x00CF_F200_0000_FFFF,
    0x0000_9E00_0000_FFFF,
    0x0000_8900_2000_0067,
    0x0000_8200_3100_000F,
];

/// A descriptor of which any bit may be another, but that mostly is present.
fn descriptor(random: &mut Random) -> u64 {
    const PRESENT: u64 = 1 << 47;
    let usual = *random.pick(&DESCRIPTORS);
    match random.below(4) {
        0 | 1 => usual,
        2 => usual ^ 1 << random.below(64),
        _ => random.bits() | PRESENT,
    }
}

/// A guest at level 0 or 3 in 64-bit, compatibility or protected mode, with a GDT and a stack of
/// random things.
fn machine(random: &mut Random, instruction: &[u8]) -> Machine {
    let mut machine =
        if random.chance(3) { Machine::protected(instruction) } else { Machine::long(instruction) };
    let mut page = [0; 0x1000];
    let mut fill = |at, value: &mut dyn FnMut() -> u64| {
        page.chunks_exact_mut(8).for_each(|to| to.copy_from_slice(&value().to_le_bytes()));
        machine.bus.store_bytes(at, &page);
    };
    fill(GDT, &mut || descriptor(random));
    // Addresses and selectors, one after the other.
    let mut selector = false;
    fill(DATA, &mut || {
        selector = !selector;
        if selector { random.operand() } else { 8 * random.below(0x20) + 3 * random.below(2) }
    });
    let cpu = &mut machine.cpu;
    for register in &mut cpu.gprs {
        *register = match random.below(3) {
            0 => DATA + random.below(0x1000),
            1 => random.below(0x100),
            _ => random.operand(),
        };
    }
    cpu.gprs[Gpr::Rsp as usize] = DATA + 16 * random.below(0x80);
    cpu.gdtr = DescriptorTable { base: GDT, limit: 0xFF };
    cpu.idtr = DescriptorTable { base: GDT + 0x800, limit: 0x7FF };
    cpu.cpl = *random.pick(&[0, 3]);
    cpu.rflags = random.bits() & 0x24_7ED5 | rflags::FIXED;
    let (level, selector) = (cpu.cpl, u16::from(cpu.cpl));
    let of_64_bits = cpu.control.efer & efer::LMA != 0 && random.chance(2);
    let attributes = code().with_dpl(level).with_long(of_64_bits).with_default_big(!of_64_bits);
    *cpu.segment_mut(SegmentRegister::Cs) = Segment { selector: 8 | selector, ..flat(attributes) };
    for register in DATA_SEGMENTS {
        *cpu.segment_mut(register) =
            Segment { selector: 16 | selector, ..flat(data().with_dpl(level)) };
    }
    let system = |kind| SegmentAttributes::new().with_kind(kind).with_present(true);
    *cpu.segment_mut(SegmentRegister::Tr) =
        Segment { selector: 24, base: DATA, limit: 0xFF, attributes: system(11) };
    let ldt = system(2).with_unusable(random.chance(2));
    *cpu.segment_mut(SegmentRegister::Ldtr) =
        Segment { selector: 32, base: GDT, limit: 0xFF, attributes: ldt };
    machine
}

/// Opcodes that load segments, flags and addresses.
const LOADING: [&[u8]; 22] = [
    &[0x48, 0xCB],
    &[0x48, 0xCB],
    &[0x48, 0xCA],
    &[0xCB],
    &[0xCF],
    &[0x9D],
    &[0x8E],
    &[0x1F],
    &[0x07],
    &[0x17],
    &[0x0F, 0xA1],
    &[0x0F, 0xA9],
    &[0xC4],
    &[0x0F, 0xB2],
    &[0x0F, 0xB4],
    &[0x0F, 0x00],
    &[0x0F, 0x01],
    &[0xFF],
    &[0xEA],
    &[0x9A],
    &[0xFB],
    &[0xC3],
];

fn instruction(random: &mut Random) -> Vec<u8> {
    let mut bytes = hostile::code(random).to_vec();
    if random.chance(2) {
        bytes.splice(..0, random.pick(&LOADING).iter().copied());
    }
    bytes.truncate(15);
    bytes
}

#[test]
fn whatever_the_emulator_makes_can_be_entered() {
    const ROUNDS: u32 = 10_000;
    const NONE: &str = "a check of the guest's state that the VMM does not know";
    // Without "unrestricted guest" there are more checks.
    let mut vcpu = entered_on(PENRYN);
    let capabilities = vcpu.capabilities;
    let mut refused = |cpu: &TestCpu| {
        load(&mut vcpu, cpu);
        first_failure(&vcpu.vmcs, &capabilities)
    };
    let mut random = Random::new(0xE27E);
    let mut done = 0;
    for _ in 0..ROUNDS {
        let code = instruction(&mut random);
        let mut machine = machine(&mut random, &code);
        assert_eq!(refused(&machine.cpu), NONE, "at first: {:x?}", machine.cpu);
        if let Outcome::Done { .. } = machine.run() {
            done += 1;
            assert_eq!(refused(&machine.cpu), NONE, "{code:02x?}: {:x?}", machine.cpu);
        }
    }
    assert!(done > ROUNDS / 4, "only {done} instructions did something");
}
