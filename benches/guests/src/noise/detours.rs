// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop that samples, and what it has found.

use bare_metal::rt::cell::Fixed;
use bare_metal::rt::console::print_line;
use bare_metal::rt::cpu::tsc;

/// Detours that can be kept of a span; later ones are counted only.
const CAPACITY: usize = 16_384;

/// A distance of two samples above the threshold.
#[derive(Clone, Copy)]
struct Detour {
    /// From the beginning of the span to the earlier sample.
    start: u64,
    /// From there to the later one.
    distance: u64,
}

static KEPT: Fixed<[Detour; CAPACITY]> = Fixed::new([Detour { start: 0, distance: 0 }; CAPACITY]);

/// The detours of the last span.
pub struct Detours {
    kept: &'static mut [Detour; CAPACITY],
}

/// What is to be said of a span beside its detours.
pub struct Summary {
    /// How long it was.
    span: u64,
    /// Distances looked at.
    samples: u64,
    /// The shortest: what the loop itself takes.
    shortest: u64,
    /// Detours.
    found: u64,
}

impl Detours {
    /// The room for them, touched, so that it is really there. To be called once.
    pub fn take() -> Self {
        // SAFETY: this runs once, on the only CPU, so that no other reference to them exists.
        let kept = unsafe { &mut *KEPT.get() };
        kept.fill(Detour { start: 1, distance: 1 });
        Self { kept }
    }

    /// Samples for `span` ticks.
    #[inline(never)]
    pub fn gather(&mut self, span: u64, threshold: u64) -> Summary {
        let mut summary = Summary { span: 0, samples: 0, shortest: u64::MAX, found: 0 };
        let begin = tsc();
        let mut last = begin;
        while summary.span < span {
            let now = tsc();
            let distance = now.wrapping_sub(last);
            if distance > threshold {
                if let Some(slot) = self.kept.get_mut(summary.found as usize) {
                    *slot = Detour { start: last.wrapping_sub(begin), distance };
                }
                summary.found += 1;
            }
            summary.shortest = summary.shortest.min(distance);
            summary.samples += 1;
            summary.span = now.wrapping_sub(begin);
            last = now;
        }
        summary
    }

    /// Prints, with numbers of detours in hexadecimal, so that they are short:
    ///
    /// ```text
    /// noise tick=PERIOD span=N samples=N shortest=N detours=N ticks=N
    /// d START DISTANCE
    /// ```
    pub fn print(&self, period: &str, summary: &Summary, ticks: u64) {
        let Summary { span, samples, shortest, found } = summary;
        print_line(format_args!(
            "noise tick={period} span={span} samples={samples} shortest={shortest} \
             detours={found} ticks={ticks}"
        ));
        for Detour { start, distance } in self.kept.iter().take(*found as usize) {
            print_line(format_args!("d {start:x} {distance:x}"));
        }
    }
}
