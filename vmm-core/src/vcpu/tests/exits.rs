// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits of any kind in any order: see [`hostile`](crate::vcpu::hostile).

use proptest::prelude::*;

use crate::vcpu::hostile::check;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn exits_of_any_kind_are_dealt_with(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes, || 0);
    }
}
