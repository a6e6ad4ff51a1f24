// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the detours of a span amount to.

use serde::Serialize;

use super::parse::Span;

/// Figures of a span.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// Number of detours.
    pub detours: u64,
    /// Detours in a second of the machine's time.
    pub per_second: f64,
    /// The shortest detour, in ticks.
    pub shortest: u64,
    /// The middle one.
    pub median: u64,
    /// The longest one.
    pub longest: u64,
    /// Share of the span that was lost in detours, from 0 to 1.
    pub lost: f64,
}

impl Figures {
    /// Those of a span on a machine whose time-stamp counter has this frequency.
    pub fn new(span: &Span, tsc_hz: u64) -> Self {
        let mut durations: Vec<u64> = span.detours.iter().map(|detour| detour.duration).collect();
        durations.sort_unstable();
        let at = |index: usize| durations.get(index).copied().unwrap_or_default();
        let length = span.length.max(1) as f64;
        let count = durations.len();
        Self {
            detours: count as u64,
            per_second: count as f64 * tsc_hz as f64 / length,
            shortest: at(0),
            median: at(count / 2),
            longest: at(count.saturating_sub(1)),
            lost: durations.iter().sum::<u64>() as f64 / length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::noise::parse::Detour;

    fn span(durations: &[u64]) -> Span {
        let detours = durations.iter().map(|&duration| Detour { start: 0, duration }).collect();
        Span { tick: None, length: 1000, samples: 9, shortest: 1, timer_ticks: 0, detours }
    }

    #[test]
    fn detours_are_summed_up() {
        let figures = Figures::new(&span(&[30, 10, 60]), 2000);
        assert_eq!((figures.detours, figures.per_second), (3, 6.0));
        assert_eq!((figures.shortest, figures.median, figures.longest), (10, 30, 60));
        assert!((figures.lost - 0.1).abs() < 1e-12);
    }

    #[test]
    fn no_detour_is_no_time_lost() {
        let figures = Figures::new(&span(&[]), 2000);
        assert_eq!((figures.detours, figures.longest), (0, 0));
        assert_eq!((figures.per_second, figures.lost), (0.0, 0.0));
    }
}
