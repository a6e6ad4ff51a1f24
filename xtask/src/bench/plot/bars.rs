// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bars that lie on their sides, so that their names can be read: beside each other in groups, or
//! end to end.

use anyhow::Result;
use plotters::style::{RGBColor, WHITE};

use super::canvas::{self, Align, Canvas, Face, SMALL, TEXT, TITLE};
use super::palette::{FAINT_INK, GRID, INK};
use super::scale::{self, Scale};

/// Width of the picture.
const WIDTH: i32 = 900;
/// Room at its edges and between its parts.
const GAP: i32 = 14;
/// Height of a line of text.
const LINE: i32 = 20;
/// Height of a bar among several of a group, and of one that is alone.
const BAR: i32 = 12;
const SINGLE_BAR: i32 = 18;
/// Half the height of the ends of a range.
const RANGE_END: i32 = 3;
/// Room for the figure behind a bar.
const FIGURE: i32 = 76;

/// How the values of a group are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Below each other.
    Grouped,
    /// End to end; the figure behind is the sum.
    Stacked,
}

/// What the bars of one colour are.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Their colour.
    pub colour: RGBColor,
}

/// The bars of one thing.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// A value for each series; some may be missing.
    pub values: Vec<Option<f64>>,
    /// Between which values each of them was, where that is known.
    pub ranges: Vec<Option<(f64, f64)>>,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What is seen.
    pub title: String,
    /// What values are, with their unit.
    pub axis: String,
    /// How values are laid out.
    pub scale: scale::Kind,
    /// Digits behind the point of the figures at the bars.
    pub digits: usize,
    /// How the bars of a group are drawn.
    pub layout: Layout,
    /// Colours, in the order of the groups' values.
    pub series: Vec<Series>,
    /// Groups, from top to bottom.
    pub groups: Vec<Group>,
    /// A value that matters, and what it is.
    pub mark: Option<(f64, String)>,
}

/// Where the bars are.
struct Field {
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    scale: Scale,
}

impl Field {
    fn x(&self, value: f64) -> i32 {
        self.left + (f64::from(self.right - self.left) * self.scale.position(value)).round() as i32
    }
}

impl Group {
    /// One of which only the values are known.
    pub fn new(name: &str, values: Vec<Option<f64>>) -> Self {
        Self { name: name.to_owned(), values, ranges: Vec::new() }
    }

    fn sum(&self) -> f64 {
        self.values.iter().flatten().sum()
    }
}

impl Bars {
    /// The picture.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        let legend = self.legend();
        let field = self.field(GAP + 2 * LINE + legend.len() as i32 * LINE);
        let height = field.bottom + 2 * LINE + GAP;
        canvas::svg((WIDTH, height), |canvas| {
            let title = Face { size: TITLE, colour: INK, align: Align::Start };
            canvas.text(&self.title, (GAP, GAP + LINE / 2), title)?;
            for (row, items) in legend.iter().enumerate() {
                self.draw_legend(canvas, items, GAP + LINE + row as i32 * LINE + LINE / 2)?;
            }
            self.draw_axis(canvas, &field)?;
            for (index, group) in self.groups.iter().enumerate() {
                self.draw_group(canvas, &field, group, field.top + index as i32 * self.pitch())?;
            }
            Ok(())
        })
    }

    fn bar(&self) -> i32 {
        if self.bars_of_group() == 1 { SINGLE_BAR } else { BAR }
    }

    fn bars_of_group(&self) -> i32 {
        match self.layout {
            Layout::Grouped => self.series.len() as i32,
            Layout::Stacked => 1,
        }
    }

    /// Distance of groups.
    fn pitch(&self) -> i32 {
        self.bars_of_group() * self.bar() + GAP
    }

    fn field(&self, top: i32) -> Field {
        let names = self.groups.iter().map(|group| canvas::width(&group.name, TEXT));
        let mark = self.mark.iter().map(|(value, _)| *value);
        let scale = match self.layout {
            Layout::Grouped => {
                let values = self.groups.iter().flat_map(|group| group.values.iter().flatten());
                let ranges = self.groups.iter().flat_map(|group| group.ranges.iter().flatten());
                let ends = ranges.map(|&(_, end)| end);
                Scale::new(self.scale, values.copied().chain(ends).chain(mark))
            }
            Layout::Stacked => {
                Scale::new(self.scale, self.groups.iter().map(Group::sum).chain(mark))
            }
        };
        let left = 2 * GAP + names.max().unwrap_or_default();
        let bottom = top + self.groups.len() as i32 * self.pitch();
        Field { left, right: WIDTH - GAP - FIGURE, top, bottom, scale }
    }

    /// Indices of the series in each line of the legend.
    fn legend(&self) -> Vec<Vec<usize>> {
        let mut lines: Vec<Vec<usize>> = Vec::new();
        let mut used = WIDTH;
        for (index, series) in self.series.iter().enumerate() {
            let width = legend_width(series);
            if used + width > WIDTH - GAP {
                (lines, used) = ([lines, vec![Vec::new()]].concat(), GAP);
            }
            used += width;
            if let Some(line) = lines.last_mut() {
                line.push(index);
            }
        }
        lines
    }

    fn draw_legend(&self, canvas: &mut Canvas<'_>, items: &[usize], y: i32) -> Result<()> {
        let mut x = GAP;
        for series in items.iter().filter_map(|&index| self.series.get(index)) {
            canvas.filled((x, y - BAR / 2), (x + BAR, y + BAR / 2), series.colour)?;
            let face = Face { size: TEXT, colour: INK, align: Align::Start };
            canvas.text(&series.name, (x + BAR + 6, y), face)?;
            x += legend_width(series);
        }
        Ok(())
    }

    fn draw_axis(&self, canvas: &mut Canvas<'_>, field: &Field) -> Result<()> {
        for tick in field.scale.ticks() {
            let x = field.x(tick);
            canvas.line((x, field.top - GAP / 2), (x, field.bottom), GRID)?;
            let face = Face { size: SMALL, colour: INK, align: Align::Middle };
            canvas.text(&scale::label(tick), (x, field.bottom + LINE / 2), face)?;
        }
        canvas.line((field.left, field.top - GAP / 2), (field.left, field.bottom), INK)?;
        let middle = (field.left + field.right) / 2;
        let face = Face { size: TEXT, colour: INK, align: Align::Middle };
        canvas.text(&self.axis, (middle, field.bottom + LINE + LINE / 2 + 2), face)?;
        if let Some((value, name)) = &self.mark {
            let x = field.x(*value);
            canvas.line((x, field.top - GAP / 2), (x, field.bottom), INK)?;
            let face = Face { size: SMALL, colour: INK, align: Align::End };
            canvas.text(name, (x - 4, field.top - GAP / 2), face)?;
        }
        Ok(())
    }

    fn draw_group(
        &self,
        canvas: &mut Canvas<'_>,
        field: &Field,
        group: &Group,
        top: i32,
    ) -> Result<()> {
        let middle = top + self.bars_of_group() * self.bar() / 2;
        let face = Face { size: TEXT, colour: INK, align: Align::End };
        canvas.text(&group.name, (field.left - GAP / 2, middle), face)?;
        match self.layout {
            Layout::Grouped => {
                for (index, (series, value)) in self.series.iter().zip(&group.values).enumerate() {
                    let y = top + index as i32 * self.bar();
                    let middle = y + self.bar() / 2;
                    let Some(value) = value else {
                        draw_figure(canvas, "–", (field.left, middle))?;
                        continue;
                    };
                    let mut end = field.x(*value).max(field.left + 1);
                    canvas.filled((field.left, y), (end, y + self.bar() - 1), series.colour)?;
                    if let Some(&(from, to)) = group.ranges.get(index).and_then(Option::as_ref) {
                        draw_range(canvas, (field.x(from), field.x(to)), middle)?;
                        end = end.max(field.x(to));
                    }
                    draw_figure(canvas, &self.figure(*value), (end, middle))?;
                }
            }
            Layout::Stacked => {
                let mut sum = 0.0;
                for (series, value) in self.series.iter().zip(&group.values) {
                    let from = field.x(sum);
                    sum += value.unwrap_or(0.0);
                    canvas.filled((from, top), (field.x(sum), top + self.bar()), series.colour)?;
                }
                draw_figure(canvas, &self.figure(sum), (field.x(sum), middle))?;
            }
        }
        Ok(())
    }

    /// A value for people.
    fn figure(&self, value: f64) -> String {
        match self.digits {
            0 => scale::label(value),
            digits => format!("{value:.digits$}"),
        }
    }
}

/// Draws between which values a bar's was: a line with ends.
fn draw_range(canvas: &mut Canvas<'_>, (from, to): (i32, i32), y: i32) -> Result<()> {
    canvas.line((from, y), (to, y), INK)?;
    for x in [from, to] {
        canvas.line((x, y - RANGE_END), (x, y + RANGE_END), INK)?;
    }
    Ok(())
}

/// Writes the figure behind a bar that ends at `x`, with the grid's lines left out there.
fn draw_figure(canvas: &mut Canvas<'_>, text: &str, (x, y): (i32, i32)) -> Result<()> {
    let end = x + 6 + canvas::width(text, SMALL);
    canvas.filled((x + 2, y - BAR / 2), (end, y + BAR / 2), WHITE)?;
    canvas.text(text, (x + 4, y), Face { size: SMALL, colour: FAINT_INK, align: Align::Start })
}

fn legend_width(series: &Series) -> i32 {
    BAR + 6 + canvas::width(&series.name, TEXT) + GAP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plot::palette::{ALCAZAR, BARE, KVM};

    fn bars(layout: Layout) -> Bars {
        let series = [("bare", BARE), ("Alcazar", ALCAZAR), ("KVM", KVM)];
        let group = |name: &str, values: &[Option<f64>]| Group::new(name, values.to_vec());
        Bars {
            title: "a < b".into(),
            axis: "instructions".into(),
            scale: if layout == Layout::Grouped { scale::Kind::Log } else { scale::Kind::Linear },
            digits: 0,
            layout,
            series: series.map(|(name, colour)| Series { name: name.into(), colour }).to_vec(),
            groups: vec![
                group("cpuid", &[Some(7.0), Some(300.0), Some(2851.0)]),
                group("hypercall", &[None, Some(290.0), Some(3084.0)]),
            ],
            mark: None,
        }
    }

    /// Rectangles of a colour: their left ends and widths.
    fn rectangles(svg: &str, colour: &str) -> Vec<(i32, i32)> {
        let attribute = |line: &str, name: &str| -> i32 {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let lines = svg.lines().filter(|line| line.starts_with("<rect") && line.contains(colour));
        lines.map(|line| (attribute(line, "x"), attribute(line, "width"))).collect()
    }

    #[test]
    fn the_same_figures_are_the_same_bytes() {
        let svg = bars(Layout::Grouped).svg().unwrap();
        assert_eq!(svg, bars(Layout::Grouped).svg().unwrap());
        assert!(svg.contains("a &lt; b") && svg.contains("font-family=\"sans-serif\""));
        assert!(svg.contains("3,084") && svg.ends_with("</svg>\n"), "{svg}");
    }

    #[test]
    fn missing_values_have_no_bar() {
        let svg = bars(Layout::Grouped).svg().unwrap();
        // One is the legend's.
        assert_eq!(rectangles(&svg, "#808080").len(), 2);
        assert_eq!(rectangles(&svg, "#0072B2").len(), 3);
        assert_eq!(svg.matches("\n–\n").count(), 1, "{svg}");
    }

    #[test]
    fn ranges_are_on_the_axis_and_figures_behind_them() {
        let mut bars = bars(Layout::Grouped);
        (bars.scale, bars.digits) = (scale::Kind::Linear, 2);
        let before = bars.svg().unwrap();
        for group in &mut bars.groups {
            group.ranges = vec![None, Some((280.0, 9000.0)), None];
        }
        let after = bars.svg().unwrap();
        assert!(after.contains("10,000") && after.contains("\n300.00\n"), "{after}");
        // Where the figure of Alcazar's bar begins.
        let figure = |svg: &str| -> i32 {
            let (text, _) = svg.split_once("\n300.00\n").unwrap();
            let (_, x) = text.rsplit_once("<text x=\"").unwrap();
            x.split_once('"').unwrap().0.parse().unwrap()
        };
        assert!(figure(&after) > 2 * figure(&before), "{after}");
    }

    #[test]
    fn stacked_bars_stand_end_to_end() {
        let svg = bars(Layout::Stacked).svg().unwrap();
        let (alcazar, kvm) = (rectangles(&svg, "#0072B2"), rectangles(&svg, "#D55E00"));
        assert_eq!(alcazar[1].0 + alcazar[1].1, kvm[1].0, "{svg}");
        assert!(svg.contains("3,374"), "{svg}");
    }

    #[test]
    fn long_legends_take_more_lines() {
        let mut bars = bars(Layout::Grouped);
        assert_eq!(bars.legend(), [[0, 1, 2]]);
        for series in &mut bars.series {
            series.name = "x".repeat(60);
        }
        assert_eq!(bars.legend(), [[0], [1], [2]]);
    }
}
