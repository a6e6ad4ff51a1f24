// SPDX-License-Identifier: MIT OR Apache-2.0
//! How figures of repeated runs scatter.

use serde::Serialize;

/// The smallest, the middle one and the largest.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// That of some figures, if there are any.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let median = *figures.get(figures.len() / 2)?;
        Some(Self { min: *figures.first()?, median, max: *figures.last()? })
    }

    /// For people, with so many digits behind the point.
    pub fn text(&self, digits: usize) -> String {
        let Self { min, median, max } = self;
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_has_as_many_on_either_side() {
        let spread = Spread::of(vec![3.0, 1.0, 2.5]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, median: 2.5, max: 3.0 });
        assert_eq!(spread.text(2), "2.50 (1.00–3.00)");
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
