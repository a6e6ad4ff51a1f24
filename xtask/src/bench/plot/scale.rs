// SPDX-License-Identifier: MIT OR Apache-2.0
//! Axes: which value is where, and where the ticks are.

use crate::bench::results::grouped;

/// How values are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Equal distances are equal differences; it begins at zero.
    Linear,
    /// Equal distances are equal ratios; it begins with a power of ten.
    Log,
}

/// An axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    /// Distance of ticks of a linear axis.
    step: f64,
}

/// Most ticks of a linear axis.
const TICKS: f64 = 8.0;

impl Scale {
    /// An axis on which all `values` are; on a logarithmic one, those that are not above zero are
    /// at its beginning.
    pub fn new(kind: Kind, values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        if most <= 0.0 {
            (least, most) = (1.0, 1.0);
        }
        match kind {
            Kind::Linear => {
                let step = step(most);
                Self { kind, low: 0.0, high: (most / step).ceil() * step, step }
            }
            Kind::Log => {
                let low = 10_f64.powf(least.log10().floor());
                Self { kind, low, high: round_up(most).max(low * 10.0), step: 0.0 }
            }
        }
    }

    /// A linear axis from zero to exactly `high`, which is above zero.
    pub fn up_to(high: f64) -> Self {
        Self { kind: Kind::Linear, low: 0.0, high, step: step(high) }
    }

    /// Where a value is: 0 at the beginning, 1 at the end, never beyond them.
    pub fn position(&self, value: f64) -> f64 {
        let at = match self.kind {
            Kind::Linear => (value - self.low) / (self.high - self.low),
            Kind::Log if value <= self.low => 0.0,
            Kind::Log => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        at.clamp(0.0, 1.0)
    }

    /// Values with a tick, in order.
    pub fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        // Counted, not added up: sums of fractions miss the end.
        for index in 0_i32.. {
            let tick = match self.kind {
                Kind::Linear => f64::from(index) * self.step,
                Kind::Log => self.low * 10_f64.powi(index),
            };
            if tick > self.high * 1.000_001 {
                break;
            }
            ticks.push(tick);
        }
        ticks
    }
}

/// A round distance of ticks for an axis up to `most`.
fn step(most: f64) -> f64 {
    round_up(most / TICKS)
}

/// The next 1, 2 or 5 times a power of ten that is not below a value.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= value * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// A value for people: thousands grouped, three digits that count where there are fewer.
pub fn label(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { 2 - value.abs().log10().floor() as i32 };
    if digits <= 0 {
        return grouped(value.round() as u64);
    }
    let text = format!("{value:.*}", usize::try_from(digits).unwrap_or_default());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_begin_at_zero_and_end_at_a_tick() {
        let scale = Scale::new(Kind::Linear, [3.0, 1_546_960.0].into_iter());
        assert_eq!(scale.ticks().last(), Some(&1_600_000.0));
        assert_eq!(scale.ticks().len(), 9);
        assert_eq!((scale.position(0.0), scale.position(800_000.0)), (0.0, 0.5));
        assert_eq!(Scale::new(Kind::Linear, [0.3].into_iter()).ticks().len(), 7);
    }

    #[test]
    fn logarithmic_axes_go_by_powers_of_ten() {
        let scale = Scale::new(Kind::Log, [0.0, 4.0, 9155.0].into_iter());
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert!((scale.position(100.0) - 0.5).abs() < 1e-9);
        assert_eq!((scale.position(0.0), scale.position(1e9)), (0.0, 1.0));
    }

    #[test]
    fn nothing_has_an_axis_all_the_same() {
        for kind in [Kind::Linear, Kind::Log] {
            let scale = Scale::new(kind, [0.0, f64::NAN].into_iter());
            assert!(scale.ticks().len() > 1 && scale.position(0.5) <= 1.0, "{scale:?}");
        }
    }

    #[test]
    fn values_are_told_with_the_digits_that_count() {
        let told = [
            (0.0, "0"),
            (0.933, "0.933"),
            (1.5, "1.5"),
            (20.0, "20"),
            (9155.4, "9,155"),
            (0.2, "0.2"),
        ];
        for (value, text) in told {
            assert_eq!(label(value), text);
        }
    }
}
