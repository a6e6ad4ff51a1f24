// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dates of the Gregorian calendar.

/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;

/// Days in 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const UNIX_EPOCH: i64 = 719_468;

/// A civil time in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CivilTime {
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

/// Days before the month that lies `months` after March, in a year that begins with March.
const fn days_before(months: i64) -> i64 {
    (153 * months + 2) / 5
}

impl CivilTime {
    /// From seconds since 1970.
    pub fn from_unix(seconds: i64) -> Self {
        let of_day = seconds.rem_euclid(DAY);
        // Years that begin with March have their leap day at the end.
        let days = seconds.div_euclid(DAY) + UNIX_EPOCH;
        let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
        let of_era_year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - days_before_year(of_era_year);
        let months = (5 * of_year + 2) / 153;
        let (month, next_year) = if months < 10 { (months + 3, 0) } else { (months - 9, 1) };
        Self {
            year: era * 400 + of_era_year + next_year,
            month: month as u8,
            day: (of_year - days_before(months) + 1) as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// Seconds since 1970. Fields beyond their range carry over; a month beyond it becomes
    /// the nearest one.
    pub fn to_unix(self) -> i64 {
        let month = i64::from(self.month.clamp(1, 12));
        let (year, months) =
            if month > 2 { (self.year, month - 3) } else { (self.year - 1, month + 9) };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let days =
            era * ERA_DAYS + days_before_year(of_era) + days_before(months) + i64::from(self.day)
                - 1
                - UNIX_EPOCH;
        days * DAY
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }

    /// Day of the week, 1 being Sunday.
    pub fn weekday(self) -> u8 {
        // 1970-01-01 was a Thursday.
        ((self.to_unix().div_euclid(DAY) + 4).rem_euclid(7) + 1) as u8
    }
}

/// Days before year `of_era` of a 400-year era that begins with March.
const fn days_before_year(of_era: i64) -> i64 {
    of_era * 365 + of_era / 4 - of_era / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments() {
        let cases = [
            (0, (1970, 1, 1), (0, 0, 0), 5),
            (951_782_399, (2000, 2, 28), (23, 59, 59), 2),
            (951_782_400, (2000, 2, 29), (0, 0, 0), 3),
            (1_709_164_800, (2024, 2, 29), (0, 0, 0), 5),
            (4_107_542_400, (2100, 3, 1), (0, 0, 0), 2),
            (-1, (1969, 12, 31), (23, 59, 59), 4),
        ];
        for (unix, (year, month, day), (hour, minute, second), weekday) in cases {
            let time = CivilTime { year, month, day, hour, minute, second };
            assert_eq!(CivilTime::from_unix(unix), time);
            assert_eq!(time.to_unix(), unix);
            assert_eq!(time.weekday(), weekday);
        }
    }

    proptest! {
        #[test]
        fn there_and_back(unix in -62_000_000_000i64..260_000_000_000) {
            let time = CivilTime::from_unix(unix);
            prop_assert_eq!(time.to_unix(), unix);
            prop_assert_eq!(CivilTime::from_unix(unix + DAY).weekday(), time.weekday() % 7 + 1);
        }
    }
}
