// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arithmetic of frequencies.

/// `value · numerator / denominator`, rounded down, saturating; 0 if the denominator is 0.
pub fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    let product = u128::from(value) * u128::from(numerator);
    let quotient = product.checked_div(u128::from(denominator)).unwrap_or(0);
    u64::try_from(quotient).unwrap_or(u64::MAX)
}

/// From ticks of the time-stamp counter to counts of a one-shot timer, without a division.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountRate {
    /// Counts per 2^32 ticks, rounded up.
    counts: u64,
}

impl CountRate {
    /// The rate of a timer of `timer_hz`, at least 1, beside a counter of `tsc_hz`.
    pub fn new(timer_hz: u64, tsc_hz: u64) -> Self {
        let counts = (u128::from(timer_hz) << 32).div_ceil(u128::from(tsc_hz.max(1)));
        Self { counts: u64::try_from(counts).unwrap_or(u64::MAX).max(1) }
    }

    /// The rate that [`to_bits`](Self::to_bits) gave; `None` for zero, which it never gives.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self { counts: bits })
    }

    /// The rate as a number that can be kept in an atomic.
    pub fn to_bits(self) -> u64 {
        self.counts
    }

    /// The count after which `ticks` have passed: rounded up, so that it never ends early, at
    /// least 1, and at most what 32 bits hold, in which case the timer has to be armed again.
    pub fn count(self, ticks: u64) -> u32 {
        let counts = (u128::from(ticks) * u128::from(self.counts)) >> 32;
        u32::try_from(counts.saturating_add(1)).unwrap_or(u32::MAX)
    }
}

/// A frequency as read from firmware or measured: believed between 10 MHz and 20 GHz.
pub fn plausible_tsc_hz(hz: u64) -> Option<u64> {
    (10_000_000..=20_000_000_000).contains(&hz).then_some(hz)
}

/// A measured frequency is farther from the one that was told than any measurement is wrong.
pub fn contradicts(measured: u64, told: u64) -> bool {
    measured.abs_diff(told) > measured / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_does_not_overflow() {
        assert_eq!(scale(u64::MAX, u64::MAX, 1), u64::MAX);
        assert_eq!(scale(u64::MAX, 3, u64::MAX), 3);
        assert_eq!(scale(5, 7, 0), 0);
    }

    #[test]
    fn counts_are_never_early_nor_zero() {
        let count = |ticks, timer_hz, tsc_hz| CountRate::new(timer_hz, tsc_hz).count(ticks);
        assert_eq!(count(0, 1_000_000_000, 3_000_000_000), 1);
        assert_eq!(count(u64::MAX, 1_000_000_000, 1_000_000_000), u32::MAX);
        assert_eq!(count(1 << 40, 1, 20_000_000_000), 1 + (1 << 8));
        for timer_hz in [1, 24_000_000, 62_500_000, 1_000_000_000, 3_999_999_999] {
            for tsc_hz in [10_000_000, 1_000_000_000, 2_399_987_654, 20_000_000_000] {
                let rate = CountRate::new(timer_hz, tsc_hz);
                for ticks in (0..34).map(|bit| (1_u64 << bit) - 1).chain([49_999, 123_456_789]) {
                    let exact = scale(ticks, timer_hz, tsc_hz);
                    let given = u64::from(rate.count(ticks));
                    let late = 1 + (ticks >> 32) + 1;
                    assert!(given > exact || given == u32::MAX.into(), "{ticks} of {timer_hz}");
                    assert!(given <= exact + late, "{ticks} at {tsc_hz} of {timer_hz}: {given}");
                }
            }
        }
    }

    #[test]
    fn a_rate_is_kept_as_a_number() {
        let rate = CountRate::new(1_000_000_000, 2_500_000_000);
        assert_eq!(CountRate::from_bits(rate.to_bits()), Some(rate));
        assert_eq!(CountRate::from_bits(0), None);
    }

    #[test]
    fn a_measurement_contradicts_what_is_far_off() {
        assert!(!contradicts(2_401_234_567, 2_400_000_000));
        assert!(!contradicts(2_300_000_000, 2_400_000_000));
        assert!(contradicts(50_000_123, 2_400_000_000));
        assert!(contradicts(2_400_000_000, 50_000_000));
    }
}
