// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest says.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::bench::figures::value;

/// One interruption, in ticks of the time-stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Detour {
    /// When it began, since the beginning of the span.
    pub start: u64,
    /// How long it was, what the guest's loop itself takes taken off.
    pub duration: u64,
}

/// A span of sampling, in ticks of the time-stamp counter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Span {
    /// Period of the guest's timer tick; nothing without one.
    pub tick: Option<u64>,
    /// How long it was.
    pub length: u64,
    /// Samples taken.
    pub samples: u64,
    /// The shortest distance of two samples, which is what the loop takes.
    pub shortest: u64,
    /// How often the guest's own timer has interrupted.
    pub timer_ticks: u64,
    /// All detours, in order.
    pub detours: Vec<Detour>,
}

/// The spans of a guest's output, in order.
///
/// # Errors
/// When a line cannot be understood, or the guest found more detours than it could keep.
pub fn spans(text: &str) -> Result<Vec<Span>> {
    let mut spans: Vec<(Span, u64)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("noise ") {
            spans.push(head(words).with_context(|| line.to_owned())?);
        } else if let Some(words) = line.strip_prefix("d ") {
            let Some((span, _)) = spans.last_mut() else { bail!("'{line}' belongs to no span") };
            let detour = detour(words, span.shortest).with_context(|| line.to_owned())?;
            span.detours.push(detour);
        }
    }
    for (span, found) in &spans {
        ensure!(
            span.detours.len() as u64 == *found,
            "the guest found {found} detours and kept {}: raise --threshold or shorten --span",
            span.detours.len()
        );
    }
    Ok(spans.into_iter().map(|(span, _)| span).collect())
}

/// A span without its detours, and how many there are to be.
fn head(words: &str) -> Result<(Span, u64)> {
    let value = |name: &str| value(words, name);
    let span = Span {
        tick: if words.starts_with("tick=off ") { None } else { Some(value("tick")?) },
        length: value("span")?,
        samples: value("samples")?,
        shortest: value("shortest")?,
        timer_ticks: value("ticks")?,
        detours: Vec::new(),
    };
    Ok((span, value("detours")?))
}

fn detour(words: &str, shortest: u64) -> Result<Detour> {
    let (start, distance) = words.split_once(' ').context("expected two numbers")?;
    let distance = u64::from_str_radix(distance, 16)?;
    let start = u64::from_str_radix(start, 16)?;
    Ok(Detour { start, duration: distance.saturating_sub(shortest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "hello\r\n\
        noise tick=off span=1000 samples=90 shortest=17 detours=0 ticks=0\r\n\
        noise tick=500 span=1010 samples=80 shortest=16 detours=2 ticks=2\r\n\
        d 1f4 56\r\nd 3e8 20\r\n";

    #[test]
    fn spans_are_read_with_their_detours() {
        let spans = spans(TEXT).unwrap();
        assert_eq!(spans.len(), 2);
        assert_eq!((spans[0].tick, spans[0].detours.len(), spans[0].shortest), (None, 0, 17));
        assert_eq!((spans[1].tick, spans[1].timer_ticks), (Some(500), 2));
        let expected = [(500, 70), (1000, 16)];
        assert_eq!(spans[1].detours, expected.map(|(start, duration)| Detour { start, duration }));
    }

    #[test]
    fn lost_and_broken_lines_are_noticed() {
        let lost = TEXT.replace("d 3e8 20\r\n", "");
        assert!(spans(&lost).unwrap_err().to_string().contains("found 2 detours and kept 1"));
        assert!(spans(&TEXT.replace("3e8", "xyz")).is_err());
        assert!(spans(&TEXT.replace("span=1010", "span=")).is_err());
        assert!(spans("d 1 2\n").unwrap_err().to_string().contains("no span"));
    }
}
