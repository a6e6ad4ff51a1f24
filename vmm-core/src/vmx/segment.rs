// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segment attributes in the form of the VMCS (Intel SDM vol. 3, 24.4.1).

use crate::state::SegmentAttributes;

/// Type, S, DPL and P are where [`SegmentAttributes`] has them.
const LOW: u32 = 0xFF;
/// AVL, L, D/B and G, from bit 8 on in [`SegmentAttributes`].
const HIGH: u32 = 0xF;
const HIGH_FROM: u32 = 8;
const HIGH_TO: u32 = 12;
/// The register holds no usable segment.
pub const UNUSABLE: u64 = 1 << 16;

/// The access-rights field for `attributes`. What is not present is unusable: the CPU enters
/// with present segments only.
pub fn to_rights(attributes: SegmentAttributes) -> u64 {
    let bits = attributes.into_bits();
    let rights = u64::from(bits & LOW | (bits >> HIGH_FROM & HIGH) << HIGH_TO);
    let usable = attributes.present() && !attributes.unusable();
    if usable { rights } else { rights | UNUSABLE }
}

/// The attributes in an access-rights field. The P bit of an unusable segment means nothing.
pub fn from_rights(rights: u64) -> SegmentAttributes {
    let bits = rights as u32;
    let attributes =
        SegmentAttributes::from_bits(bits & LOW | (bits >> HIGH_TO & HIGH) << HIGH_FROM);
    let unusable = rights & UNUSABLE != 0;
    attributes.with_unusable(unusable).with_present(attributes.present() && !unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_the_round_trip() {
        let code = SegmentAttributes::new()
            .with_kind(11)
            .with_code_or_data(true)
            .with_present(true)
            .with_dpl(3)
            .with_long(true)
            .with_granularity(true);
        assert_eq!(to_rights(code), 0xA0FB);
        assert_eq!(from_rights(0xA0FB), code);
        assert_eq!(to_rights(SegmentAttributes::new()), UNUSABLE);
        assert!(from_rights(UNUSABLE | 0x80).unusable());
        assert!(!from_rights(UNUSABLE | 0x80).present());
    }
}
