// SPDX-License-Identifier: MIT OR Apache-2.0
//! Colours that people with any kind of colour vision can tell apart (Okabe and Ito, "Color
//! Universal Design", 2008), one for each thing that plots compare.

use plotters::style::RGBColor;

use crate::bench::place::Place;

/// The bare machine, the limit.
pub const BARE: RGBColor = RGBColor(0x80, 0x80, 0x80);
/// Alcazar.
pub const ALCAZAR: RGBColor = RGBColor(0x00, 0x72, 0xB2);
/// Alcazar in another setting.
pub const ALCAZAR_OTHER: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
/// Linux KVM.
pub const KVM: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
/// Linux KVM in another setting.
pub const KVM_OTHER: RGBColor = RGBColor(0xE6, 0x9F, 0x00);

/// Text and axes.
pub const INK: RGBColor = RGBColor(0x20, 0x20, 0x20);
/// Text that matters less.
pub const FAINT_INK: RGBColor = RGBColor(0x60, 0x60, 0x60);
/// Lines of the grid.
pub const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);

/// The colour of a place.
pub const fn of(place: Place) -> RGBColor {
    match place {
        Place::Bare => BARE,
        Place::Alcazar => ALCAZAR,
        Place::AlcazarShadow => ALCAZAR_OTHER,
        Place::Kvm => KVM,
        Place::KvmShadow => KVM_OTHER,
    }
}
