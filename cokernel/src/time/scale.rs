// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arithmetic of frequencies.

/// `value · numerator / denominator`, rounded down, saturating; 0 if the denominator is 0.
pub fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    let product = u128::from(value) * u128::from(numerator);
    let quotient = product.checked_div(u128::from(denominator)).unwrap_or(0);
    u64::try_from(quotient).unwrap_or(u64::MAX)
}

/// The count for a one-shot timer of `timer_hz` that ends after `ticks` of `tsc_hz`: rounded
/// up, so that it never ends early, at least 1, and at most what its 32 bits hold, in which
/// case the timer has to be armed again.
pub fn timer_count(ticks: u64, timer_hz: u64, tsc_hz: u64) -> u32 {
    let count = scale(ticks, timer_hz, tsc_hz).saturating_add(1);
    u32::try_from(count).unwrap_or(u32::MAX)
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
        assert_eq!(timer_count(0, 1_000_000_000, 3_000_000_000), 1);
        assert_eq!(timer_count(3_000_000_000, 1_000_000_000, 3_000_000_000), 1_000_000_001);
        assert_eq!(timer_count(u64::MAX, 1_000_000_000, 1_000_000_000), u32::MAX);
    }

    #[test]
    fn a_measurement_contradicts_what_is_far_off() {
        assert!(!contradicts(2_401_234_567, 2_400_000_000));
        assert!(!contradicts(2_300_000_000, 2_400_000_000));
        assert!(contradicts(50_000_123, 2_400_000_000));
        assert!(contradicts(2_400_000_000, 50_000_000));
    }
}
