// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the registers express numbers: BCD or binary, 12 or 24 hours.

/// The PM bit of an hour in 12-hour form.
const PM: u8 = 0x80;

/// The data mode and hour form that register B selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    pub binary: bool,
    pub hours_24: bool,
}

/// What an alarm register asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AlarmField {
    /// Every value: the two upper bits are set.
    Any,
    Exactly(u8),
}

impl AlarmField {
    pub fn matches(self, value: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => wanted == value,
        }
    }

    /// True if some value below `limit` matches.
    pub fn matches_below(self, limit: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => wanted < limit,
        }
    }
}

impl Format {
    pub fn encode(self, value: u8) -> u8 {
        if self.binary { value } else { ((value / 10 % 10) << 4) | (value % 10) }
    }

    /// The value of a register; digits beyond 9 count for what they are.
    pub fn decode(self, register: u8) -> u8 {
        if self.binary { register } else { (register >> 4) * 10 + (register & 0xF) }
    }

    pub fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let of_half = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(of_half) | if hour >= 12 { PM } else { 0 }
    }

    pub fn decode_hour(self, register: u8) -> u8 {
        if self.hours_24 {
            return self.decode(register);
        }
        let half = if register & PM != 0 { 12 } else { 0 };
        self.decode(register & !PM) % 12 + half
    }

    pub fn alarm(self, register: u8) -> AlarmField {
        if is_wildcard(register) {
            AlarmField::Any
        } else {
            AlarmField::Exactly(self.decode(register))
        }
    }

    pub fn alarm_hour(self, register: u8) -> AlarmField {
        if is_wildcard(register) {
            AlarmField::Any
        } else {
            AlarmField::Exactly(self.decode_hour(register))
        }
    }
}

fn is_wildcard(register: u8) -> bool {
    register & 0xC0 == 0xC0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hour_survives_every_format() {
        for (binary, hours_24) in [(false, false), (false, true), (true, false), (true, true)] {
            let format = Format { binary, hours_24 };
            for hour in 0..24 {
                assert_eq!(format.decode_hour(format.encode_hour(hour)), hour);
            }
            for value in 0..100 {
                assert_eq!(format.decode(format.encode(value)), value);
            }
        }
    }

    #[test]
    fn hours_look_as_the_data_sheet_says() {
        let bcd_12 = Format { binary: false, hours_24: false };
        assert_eq!([0, 1, 11, 12, 23].map(|h| bcd_12.encode_hour(h)), [0x12, 1, 0x11, 0x92, 0x91]);
        let binary_24 = Format { binary: true, hours_24: true };
        assert_eq!(binary_24.encode_hour(23), 23);
    }
}
