// SPDX-License-Identifier: MIT OR Apache-2.0
//! The battery-backed clock (Motorola MC146818A).

/// The clock's registers at one moment, as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtcRegisters {
    /// Register 0.
    pub second: u8,
    /// Register 2.
    pub minute: u8,
    /// Register 4; bit 7 is PM in 12-hour mode.
    pub hour: u8,
    /// Register 7.
    pub day: u8,
    /// Register 8.
    pub month: u8,
    /// Register 9: the year of the century.
    pub year: u8,
    /// Status register B: bit 1 24-hour mode, bit 2 binary instead of BCD.
    pub status_b: u8,
}

impl RtcRegisters {
    /// Seconds since 1970-01-01T00:00:00Z, for a clock in UTC between 1970 and 2069; `None` if
    /// the registers hold no date.
    pub fn unix_seconds(&self) -> Option<u64> {
        let binary = self.status_b & 4 != 0;
        let decode = |raw: u8| match (binary, raw >> 4, raw & 0xF) {
            (true, ..) => Some(u64::from(raw)),
            (false, tens @ 0..=9, ones @ 0..=9) => Some(u64::from(tens * 10 + ones)),
            _ => None,
        };
        let second = decode(self.second).filter(|v| *v < 60)?;
        let minute = decode(self.minute).filter(|v| *v < 60)?;
        let hour = if self.status_b & 2 != 0 {
            decode(self.hour)?
        } else {
            let hour = decode(self.hour & 0x7F).filter(|v| (1..=12).contains(v))?;
            hour % 12 + if self.hour & 0x80 != 0 { 12 } else { 0 }
        };
        let year = decode(self.year).filter(|v| *v < 100)?;
        let year = if year < 70 { 2000 + year } else { 1900 + year };
        let month = decode(self.month).filter(|v| (1..=12).contains(v))?;
        let day = decode(self.day).filter(|v| (1..=31).contains(v))?;
        let days = days_since_epoch(year, month, day);
        (hour < 24).then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar from that day on. Years are
/// counted from March, so that the leap day is the last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(target_os = "none")]
mod hardware {
    use x86::io::{inb, outb};

    use super::RtcRegisters;
    use crate::irq_lock::IrqLock;

    const INDEX_PORT: u16 = 0x70;
    const DATA_PORT: u16 = 0x71;
    const UPDATE_IN_PROGRESS: u8 = 0x80;
    /// An update takes 2 ms at most; a clock that is never ready is absent.
    const ATTEMPTS: u32 = 100_000;

    static PORTS: IrqLock<()> = IrqLock::new(());

    fn register(index: u8) -> u8 {
        // SAFETY: reading the clock's registers has no effect on it; bit 7 of the index keeps
        // NMIs enabled when clear.
        unsafe {
            outb(INDEX_PORT, index);
            inb(DATA_PORT)
        }
    }

    fn snapshot() -> Option<RtcRegisters> {
        (0..ATTEMPTS).find(|_| register(0x0A) & UPDATE_IN_PROGRESS == 0)?;
        Some(RtcRegisters {
            second: register(0),
            minute: register(2),
            hour: register(4),
            day: register(7),
            month: register(8),
            year: register(9),
            status_b: register(0x0B),
        })
    }

    /// Seconds since 1970-01-01T00:00:00Z by the battery-backed clock, which is taken to run
    /// in UTC; `None` if there is none or it holds no date.
    pub fn unix_seconds() -> Option<u64> {
        let _guard = PORTS.lock();
        // An update between two reads shows as a difference.
        let mut previous = snapshot()?;
        for _ in 0..8 {
            let current = snapshot()?;
            if current == previous {
                return current.unix_seconds();
            }
            previous = current;
        }
        None
    }
}

#[cfg(target_os = "none")]
pub use hardware::unix_seconds;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bcd(value: u64) -> u8 {
        (value / 10 * 16 + value % 10) as u8
    }

    #[test]
    fn known_dates() {
        let mut r = RtcRegisters {
            second: 0x59,
            minute: 0x59,
            hour: 0x23,
            day: 0x29,
            month: 0x02,
            year: 0x24,
            status_b: 2,
        };
        assert_eq!(r.unix_seconds(), Some(1_709_251_199));
        r.status_b = 0;
        r.hour = 0x80 | 0x11;
        assert_eq!(r.unix_seconds(), Some(1_709_251_199));
        r.hour = 0x12;
        assert_eq!(r.unix_seconds(), Some(1_709_251_199 - 23 * 3600));
        r.month = 0x13;
        assert_eq!(r.unix_seconds(), None);
        assert_eq!(days_since_epoch(1970, 1, 1), 0);
        assert_eq!(days_since_epoch(2000, 3, 1), 11_017);
    }

    proptest! {
        #[test]
        fn binary_and_bcd_agree(
            second in 0u64..60, minute in 0u64..60, hour in 0u64..24,
            day in 1u64..29, month in 1u64..13, year in 0u64..100,
        ) {
            let make = |f: &dyn Fn(u64) -> u8, status_b| RtcRegisters {
                second: f(second), minute: f(minute), hour: f(hour),
                day: f(day), month: f(month), year: f(year), status_b,
            };
            let binary = make(&|v| v as u8, 6).unix_seconds();
            prop_assert!(binary.is_some());
            prop_assert_eq!(binary, make(&bcd, 2).unix_seconds());
        }
    }
}
