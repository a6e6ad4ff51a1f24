// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Multiple APIC Description Table (ACPI 6.5, section 5.2.12).

use alloc::vec::Vec;

use super::HEADER_BYTES;
use crate::{
    PhysAddr,
    address::{read_u16, read_u32, read_u64},
};

/// A CPU that may be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MadtCpu {
    /// Local APIC or x2APIC ID.
    pub apic_id: u32,
    /// False if it is only online capable: it can be added later but must not be started now.
    pub enabled: bool,
}

/// An I/O APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApicEntry {
    /// Address of its registers.
    pub address: PhysAddr,
    /// Global system interrupt of its first input.
    pub first_gsi: u32,
}

/// Which level asserts an interrupt line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polarity {
    /// Asserted when high.
    High,
    /// Asserted when low.
    Low,
}

/// How an interrupt line signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// By an edge.
    Edge,
    /// By its level.
    Level,
}

/// Where an ISA interrupt really goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptOverride {
    /// ISA interrupt number.
    pub irq: u8,
    /// Global system interrupt.
    pub gsi: u32,
    /// Polarity of the line.
    pub polarity: Polarity,
    /// Trigger mode of the line.
    pub trigger: Trigger,
}

/// The table's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Madt {
    /// Address of the local APICs' registers.
    pub local_apic: PhysAddr,
    /// True if the machine also has a pair of 8259s.
    pub has_legacy_pics: bool,
    /// The CPUs, in the order of the table, without duplicates.
    pub cpus: Vec<MadtCpu>,
    /// The I/O APICs.
    pub io_apics: Vec<IoApicEntry>,
    /// ISA interrupts that are not identity mapped or not edge-triggered and active high.
    pub overrides: Vec<InterruptOverride>,
}

impl Madt {
    /// Reads a table whose header was checked. An entry that is too short for its type is
    /// skipped; one without a length ends the list.
    pub fn parse(table: &[u8]) -> Option<Self> {
        let mut madt = Self {
            local_apic: PhysAddr(u64::from(read_u32(table, HEADER_BYTES)?)),
            has_legacy_pics: read_u32(table, HEADER_BYTES + 4)? & 1 != 0,
            cpus: Vec::new(),
            io_apics: Vec::new(),
            overrides: Vec::new(),
        };
        let mut rest = table.get(HEADER_BYTES + 8..)?;
        while let [kind, length, ..] = *rest {
            let Some((entry, next)) = rest.split_at_checked(usize::from(length).max(2)) else {
                break;
            };
            let _ = madt.add(kind, entry);
            rest = next;
        }
        Some(madt)
    }

    /// The line behind an ISA interrupt: by default edge-triggered, active high, on the
    /// global system interrupt of the same number.
    pub fn isa_line(&self, irq: u8) -> InterruptOverride {
        self.overrides.iter().copied().find(|o| o.irq == irq).unwrap_or(InterruptOverride {
            irq,
            gsi: u32::from(irq),
            polarity: Polarity::High,
            trigger: Trigger::Edge,
        })
    }

    fn add(&mut self, kind: u8, entry: &[u8]) -> Option<()> {
        match kind {
            0 => self.add_cpu(u32::from(*entry.get(3)?), read_u32(entry, 4)?),
            1 => self.io_apics.push(IoApicEntry {
                address: PhysAddr(u64::from(read_u32(entry, 4)?)),
                first_gsi: read_u32(entry, 8)?,
            }),
            2 => {
                let flags = read_u16(entry, 8)?;
                self.overrides.push(InterruptOverride {
                    irq: *entry.get(3)?,
                    gsi: read_u32(entry, 4)?,
                    polarity: if flags & 3 == 3 { Polarity::Low } else { Polarity::High },
                    trigger: if flags >> 2 & 3 == 3 { Trigger::Level } else { Trigger::Edge },
                });
            }
            5 => self.local_apic = PhysAddr(read_u64(entry, 4)?),
            9 => self.add_cpu(read_u32(entry, 4)?, read_u32(entry, 8)?),
            _ => {}
        }
        Some(())
    }

    fn add_cpu(&mut self, apic_id: u32, flags: u32) {
        let enabled = flags & 1 != 0;
        let online_capable = flags & 2 != 0;
        let known = self.cpus.iter().any(|cpu| cpu.apic_id == apic_id);
        if (enabled || online_capable) && !known {
            self.cpus.push(MadtCpu { apic_id, enabled });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::make_table, *};

    #[test]
    fn entries_of_all_kinds() {
        let mut body = alloc::vec![0, 0, 0xE0, 0xFE, 1, 0, 0, 0];
        body.extend([0, 8, 0, 0, 1, 0, 0, 0]); // enabled
        body.extend([0, 8, 1, 1, 0, 0, 0, 0]); // disabled
        body.extend([0, 8, 2, 2, 2, 0, 0, 0]); // online capable
        body.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]); // x2APIC 256
        body.extend([9, 16, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // x2APIC 0 again
        body.extend([1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0]);
        body.extend([2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0]); // high, level
        body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
        body.extend([0x80, 3, 0]);
        body.extend([2, 4, 0, 9]); // too short: ignored
        let madt = Madt::parse(&make_table(b"APIC", &body)).unwrap();
        let cpus: Vec<_> = madt.cpus.iter().map(|c| (c.apic_id, c.enabled)).collect();
        assert_eq!(cpus, [(0, true), (2, false), (256, true)]);
        assert_eq!(madt.io_apics[0].address.0, 0xFEC0_0000);
        assert!(madt.has_legacy_pics);
        assert_eq!(madt.isa_line(0).gsi, 2);
        assert_eq!(madt.isa_line(9).trigger, Trigger::Level);
        assert_eq!(madt.isa_line(9).polarity, Polarity::High);
        assert_eq!(madt.isa_line(4).gsi, 4);
    }

    #[test]
    fn local_apic_address_override_and_truncated_tail() {
        let mut body = alloc::vec![0, 0, 0xE0, 0xFE, 0, 0, 0, 0];
        body.extend([5, 12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        body.extend([0, 8, 0]);
        let madt = Madt::parse(&make_table(b"APIC", &body)).unwrap();
        assert_eq!(madt.local_apic.0, 0x1_0000_0000);
        assert!(madt.cpus.is_empty());
    }
}
