// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Fixed ACPI Description Table (ACPI 6.5, section 5.2.9), as far as time needs it.

use crate::{
    PhysAddr,
    address::{read_u32, read_u64},
};

/// Offset of `PM_TMR_BLK`.
const PM_TIMER_BLOCK: usize = 76;
/// Offset of `PM_TMR_LEN`.
const PM_TIMER_LENGTH: usize = 91;
/// Offset of `Flags`.
const FLAGS: usize = 112;
/// Offset of `X_PM_TMR_BLK`, a generic address structure.
const X_PM_TIMER_BLOCK: usize = 208;
const FLAG_TIMER_32_BIT: u32 = 1 << 8;

/// Where the PM timer's register is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerBlock {
    /// At an I/O port.
    Port(u16),
    /// In memory.
    Memory(PhysAddr),
}

/// What was learnt from the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fadt {
    /// The PM timer, unless the machine has none.
    pub pm_timer: Option<TimerBlock>,
    /// True if the PM timer counts 32 bits, false if 24.
    pub pm_timer_32_bit: bool,
}

impl Fadt {
    /// Reads a table whose header was checked.
    pub fn parse(table: &[u8]) -> Option<Self> {
        let flags = read_u32(table, FLAGS)?;
        let present = *table.get(PM_TIMER_LENGTH)? == 4;
        let legacy = u16::try_from(read_u32(table, PM_TIMER_BLOCK)?).ok().filter(|&p| p != 0);
        let pm_timer = extended_timer(table).or(legacy.map(TimerBlock::Port)).filter(|_| present);
        Some(Self { pm_timer, pm_timer_32_bit: flags & FLAG_TIMER_32_BIT != 0 })
    }
}

fn extended_timer(table: &[u8]) -> Option<TimerBlock> {
    let space = *table.get(X_PM_TIMER_BLOCK)?;
    let address = read_u64(table, X_PM_TIMER_BLOCK + 4).filter(|&address| address != 0)?;
    match space {
        0 => Some(TimerBlock::Memory(PhysAddr(address))),
        1 => u16::try_from(address).ok().map(TimerBlock::Port),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::{super::tests::make_table, *};

    fn fadt(edit: impl Fn(&mut [u8])) -> Fadt {
        let mut table = make_table(b"FACP", &vec![0; 244 - 36]);
        table[PM_TIMER_BLOCK..PM_TIMER_BLOCK + 2].copy_from_slice(&[0x08, 0x06]);
        table[PM_TIMER_LENGTH] = 4;
        edit(&mut table);
        Fadt::parse(&table).unwrap()
    }

    #[test]
    fn legacy_and_extended_timer() {
        assert_eq!(fadt(|_| {}).pm_timer, Some(TimerBlock::Port(0x608)));
        assert!(!fadt(|_| {}).pm_timer_32_bit);
        assert!(fadt(|t| t[113] = 1).pm_timer_32_bit);
        assert_eq!(fadt(|t| t[PM_TIMER_LENGTH] = 0).pm_timer, None);
        let memory = fadt(|t| t[X_PM_TIMER_BLOCK + 4 + 3] = 0xFE);
        assert_eq!(memory.pm_timer, Some(TimerBlock::Memory(PhysAddr(0xFE00_0000))));
    }
}
