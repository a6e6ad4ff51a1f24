// SPDX-License-Identifier: MIT OR Apache-2.0
//! Panels of dots that all have the same axes, to be compared with each other.

use std::collections::BTreeSet;

use anyhow::Result;
use plotters::style::RGBColor;

use super::canvas::{self, Align, Canvas, Face, SMALL, TEXT, TITLE};
use super::palette::{FAINT_INK, GRID, INK};
use super::scale::{self, Scale};

/// Width of the picture.
const WIDTH: i32 = 900;
/// Height of a panel's field.
const HEIGHT: i32 = 150;
/// Room at the edges and between parts.
const GAP: i32 = 14;
/// Height of a line of text.
const LINE: i32 = 20;
/// Height of what stands above a panel's field: its title, and below that its note.
const HEAD: i32 = 36;
/// Room for the ticks of the axis upwards.
const TICKS: i32 = 66;

/// One panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What is seen in it.
    pub title: String,
    /// In short what the dots amount to.
    pub note: String,
    /// Colour of the dots.
    pub colour: RGBColor,
    /// Dots: the value to the right and the value upwards.
    pub dots: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Scatter {
    /// What is seen.
    pub title: String,
    /// What values to the right are, with their unit; the axis is linear.
    pub right: String,
    /// What values upwards are, with their unit; the axis is logarithmic.
    pub up: String,
    /// Where the axis to the right ends.
    pub end: f64,
    /// The value upwards below which nothing is a dot; it has a line.
    pub threshold: f64,
    /// Panels in a row.
    pub columns: usize,
    /// Panels, row by row.
    pub panels: Vec<Panel>,
}

/// How far the axis upwards goes beyond the uppermost dot, as a factor.
const HEADROOM: f64 = 2.0;

/// The axes of all panels.
struct Axes {
    right: Scale,
    up: Scale,
    threshold: f64,
}

impl Scatter {
    /// The picture.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        let dots = self.panels.iter().flat_map(|panel| &panel.dots);
        let ends = dots.flat_map(|&(_, up)| [up, up * HEADROOM]).chain([self.threshold]);
        let up = Scale::new(scale::Kind::Log, ends);
        let axes = Axes { right: Scale::up_to(self.end), up, threshold: self.threshold };
        let columns = self.columns.max(1);
        let rows = self.panels.len().div_ceil(columns) as i32;
        let top = GAP + LINE + GAP / 2;
        let pitch = HEAD + HEIGHT + LINE + GAP;
        let bottom = top + rows * pitch;
        let left = GAP + LINE + TICKS;
        let width = (WIDTH - left) / columns as i32;
        canvas::svg((WIDTH, bottom + LINE + GAP / 2), |canvas| {
            let title = Face { size: TITLE, colour: INK, align: Align::Start };
            canvas.text(&self.title, (GAP, GAP + LINE / 2), title)?;
            let face = Face { size: TEXT, colour: INK, align: Align::Middle };
            canvas.text(&self.right, ((left + WIDTH) / 2, bottom + LINE / 2 - GAP / 2), face)?;
            canvas.upward(&self.up, (GAP + LINE / 2, (top + bottom) / 2), face)?;
            for (index, panel) in self.panels.iter().enumerate() {
                let (row, column) = ((index / columns) as i32, (index % columns) as i32);
                let from = (left + column * width, top + row * pitch + HEAD);
                let to = (from.0 + width - 2 * GAP, from.1 + HEIGHT);
                panel.draw(canvas, &axes, (from, to), column == 0)?;
            }
            Ok(())
        })
    }
}

impl Panel {
    fn draw(
        &self,
        canvas: &mut Canvas<'_>,
        axes: &Axes,
        (from, to): ((i32, i32), (i32, i32)),
        is_first: bool,
    ) -> Result<()> {
        let x = |value| from.0 + (f64::from(to.0 - from.0) * axes.right.position(value)) as i32;
        let y = |value| to.1 - (f64::from(to.1 - from.1) * axes.up.position(value)) as i32;
        let title = Face { size: TEXT, colour: INK, align: Align::Start };
        canvas.text(&self.title, (from.0, from.1 - HEAD + LINE / 2), title)?;
        let ticks = Face { size: SMALL, colour: INK, align: Align::Middle };
        for tick in axes.right.ticks() {
            canvas.line((x(tick), from.1), (x(tick), to.1), GRID)?;
            canvas.text(&scale::label(tick), (x(tick), to.1 + LINE / 2), ticks)?;
        }
        for tick in axes.up.ticks() {
            canvas.line((from.0, y(tick)), (to.0, y(tick)), GRID)?;
            if is_first {
                let face = Face { align: Align::End, ..ticks };
                canvas.text(&scale::label(tick), (from.0 - 4, y(tick)), face)?;
            }
        }
        let threshold = y(axes.threshold);
        canvas.line((from.0, threshold), (to.0, threshold), FAINT_INK)?;
        if is_first {
            let face = Face { size: SMALL, colour: FAINT_INK, align: Align::Start };
            let text = format!("threshold {}", scale::label(axes.threshold));
            canvas.text(&text, (from.0 + 4, threshold + LINE / 3), face)?;
        }
        canvas.frame(from, to, FAINT_INK)?;
        // Dots at the same place are one.
        let places: BTreeSet<_> = self.dots.iter().map(|&(right, up)| (x(right), y(up))).collect();
        for place in places {
            canvas.dot(place, self.colour)?;
        }
        let note = Face { size: SMALL, colour: FAINT_INK, align: Align::Start };
        canvas.text(&self.note, (from.0, from.1 - LINE / 2), note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plot::palette::{ALCAZAR, KVM};

    fn scatter() -> Scatter {
        let panel = |title: &str, colour, dots: &[(f64, f64)]| Panel {
            title: title.into(),
            note: format!("{} dots", dots.len()),
            colour,
            dots: dots.to_vec(),
        };
        Scatter {
            title: "t".into(),
            right: "time".into(),
            up: "duration".into(),
            end: 10.0,
            threshold: 10.0,
            columns: 2,
            panels: vec![
                panel("quiet", ALCAZAR, &[]),
                panel("loud", KVM, &[(0.0, 10.0), (0.0, 10.0), (10.0, 1000.0)]),
                panel("again", KVM, &[(0.0, 10.0)]),
            ],
        }
    }

    /// Centres of the dots.
    fn dots(svg: &str) -> Vec<(i32, i32)> {
        let attribute = |line: &str, name: &str| -> i32 {
            let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let lines = svg.lines().filter(|line| line.starts_with("<circle"));
        lines.map(|line| (attribute(line, "cx"), attribute(line, "cy"))).collect()
    }

    #[test]
    fn dots_are_at_the_corners_where_they_belong() {
        let svg = scatter().svg().unwrap();
        let dots = dots(&svg);
        assert_eq!(dots.len(), 3, "{svg}");
        // The second panel's go from its lower left corner to its right edge, below its upper one.
        let height = dots[0].1 - dots[1].1;
        assert!(HEIGHT / 2 < height && height < HEIGHT - 10, "{height}");
        assert!(dots[1].0 - dots[0].0 > 300 && dots[0].0 > WIDTH / 2);
        // The same values are at the same place in the panel below.
        assert!(dots[2].1 > dots[0].1 && dots[2].0 < WIDTH / 2);
        assert_eq!(svg, scatter().svg().unwrap());
    }
}
