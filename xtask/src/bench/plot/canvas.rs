// SPDX-License-Identifier: MIT OR Apache-2.0
//! What plots are drawn on, in pixels from the upper left corner.

use anyhow::{Result, anyhow};
use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, TextStyle, WHITE,
};
use plotters_backend::DrawingErrorKind;

/// Font size of titles.
pub const TITLE: i32 = 16;
/// Font size of everything that is read.
pub const TEXT: i32 = 13;
/// Font size of figures at bars and ticks.
pub const SMALL: i32 = 11;

/// Radius of a dot.
const DOT_RADIUS: u32 = 2;
/// How much of what is below a dot it hides.
const DOT_OPACITY: f64 = 0.75;

/// What plotters divides a font's size by when it writes an SVG file.
const FONT_UNIT: f64 = 1.24;

/// Where a text is, seen from its position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// To the right of it.
    Start,
    /// Around it.
    Middle,
    /// To the left of it.
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub struct Face {
    /// Font size.
    pub size: i32,
    /// Its colour.
    pub colour: RGBColor,
    /// Where it is.
    pub align: Align,
}

/// A drawing that is being made.
pub struct Canvas<'a>(SVGBackend<'a>);

/// An SVG file with what `draw` draws.
///
/// # Errors
/// Those of `draw`.
pub fn svg(
    (width, height): (i32, i32),
    draw: impl FnOnce(&mut Canvas<'_>) -> Result<()>,
) -> Result<String> {
    let mut text = String::new();
    let size = (u32::try_from(width)?, u32::try_from(height)?);
    let mut canvas = Canvas(SVGBackend::with_string(&mut text, size));
    canvas.filled((0, 0), (width, height), WHITE)?;
    draw(&mut canvas)?;
    done(canvas.0.present())?;
    drop(canvas);
    Ok(text)
}

/// Pixels that a text of this font size needs at most, by what letters of wide sans-serif fonts are
/// in hundredths of the size.
pub fn width(text: &str, size: i32) -> i32 {
    let hundredths = |letter: char| match letter {
        'i' | 'j' | 'l' | '\'' | '|' => 30,
        'f' | 'r' | 't' | ' ' | ',' | '.' | ':' | ';' | '/' | '(' | ')' | '-' => 42,
        'm' | 'w' | 'M' | 'W' => 98,
        letter if letter.is_uppercase() => 74,
        _ => 65,
    };
    let sum = text.chars().map(hundredths).fold(0_i32, i32::saturating_add);
    sum.saturating_mul(size) / 100 + 1
}

impl Canvas<'_> {
    /// Writes a text, around `y` in height.
    ///
    /// # Errors
    /// When plotters refuses it, as the methods below.
    pub fn text(&mut self, text: &str, (x, y): (i32, i32), face: Face) -> Result<()> {
        self.write(text, (x, y), face, FontTransform::None)
    }

    /// Writes a text upwards, around the position.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn upward(&mut self, text: &str, (x, y): (i32, i32), face: Face) -> Result<()> {
        self.write(text, (x, y), face, FontTransform::Rotate270)
    }

    fn write(&mut self, text: &str, at: (i32, i32), face: Face, turn: FontTransform) -> Result<()> {
        let horizontal = match face.align {
            Align::Start => HPos::Left,
            Align::Middle => HPos::Center,
            Align::End => HPos::Right,
        };
        let size = f64::from(face.size) * FONT_UNIT;
        let font = FontDesc::new(FontFamily::SansSerif, size, FontStyle::Normal).transform(turn);
        let style =
            TextStyle::from(font).color(&face.colour).pos(Pos::new(horizontal, VPos::Center));
        done(self.0.draw_text(text, &style, at))
    }

    /// Fills a rectangle.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn filled(&mut self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<()> {
        done(self.0.draw_rect(from, to, &colour, true))
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn frame(&mut self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<()> {
        done(self.0.draw_rect(from, to, &colour, false))
    }

    /// Draws a line.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn line(&mut self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<()> {
        done(self.0.draw_line(from, to, &colour))
    }

    /// Draws a dot through which others can be seen.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn dot(&mut self, at: (i32, i32), colour: RGBColor) -> Result<()> {
        done(self.0.draw_circle(at, DOT_RADIUS, &colour.mix(DOT_OPACITY), true))
    }
}

fn done<E: std::error::Error + Send + Sync>(result: Result<(), DrawingErrorKind<E>>) -> Result<()> {
    result.map_err(|error| anyhow!("cannot draw: {error}"))
}
