// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Alcazar promises about noise.

use super::measure::Sample;

/// What there is to say against a span under Alcazar: a guest that computes is left alone but for
/// its own timer ticks.
pub fn complaint(sample: &Sample) -> Option<String> {
    let (detours, ticks) = (sample.figures.detours, sample.span.timer_ticks);
    let title = sample.scenario.title();
    let Some(period) = sample.span.tick else {
        let exits = sample.exits.iter().flat_map(|exits| exits.values()).sum::<u64>();
        return (detours > 0 || exits > 0)
            .then(|| format!("{title}, tick off: {detours} detours, {exits} exits"));
    };
    // A tick at the very edge of the span may be outside of it.
    let is_own = detours <= ticks && ticks - detours <= 1;
    let is_due = ticks.abs_diff(sample.span.length / period) <= 1;
    (!is_own || !is_due).then(|| {
        format!(
            "{title}, tick on: {detours} detours, {ticks} timer ticks in {} periods",
            sample.span.length / period
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::noise::figures::Figures;
    use crate::bench::noise::measure::Exits;
    use crate::bench::noise::parse::{Detour, Span};
    use crate::bench::noise::scenario::Scenario;

    fn sample(
        tick: Option<u64>,
        timer_ticks: u64,
        detours: usize,
        exits: &[(&str, u64)],
    ) -> Sample {
        let detours = vec![Detour { start: 0, duration: 60 }; detours];
        let span = Span { tick, length: 1000, samples: 9, shortest: 1, timer_ticks, detours };
        let exits: Exits = exits.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Sample {
            scenario: Scenario::Alcazar,
            tsc_hz: 1000,
            figures: Figures::new(&span, 1000),
            exits: Some(exits),
            neighbour_exits: None,
            span,
        }
    }

    #[test]
    fn a_guest_without_a_tick_is_left_alone() {
        assert_eq!(complaint(&sample(None, 0, 0, &[])), None);
        assert!(complaint(&sample(None, 0, 1, &[])).unwrap().contains("1 detours, 0 exits"));
        assert!(complaint(&sample(None, 0, 0, &[("host_interrupt", 2)])).is_some());
    }

    #[test]
    fn a_guest_with_a_tick_has_its_own_ticks_and_nothing_else() {
        let exits = [("host_interrupt", 10)];
        for detours in [9, 10] {
            assert_eq!(complaint(&sample(Some(100), 10, detours, &exits)), None);
        }
        for (ticks, detours) in [(10, 8), (10, 11), (5, 5), (12, 12)] {
            assert!(complaint(&sample(Some(100), ticks, detours, &exits)).is_some());
        }
    }
}
