// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host of what is fuzzed.

use host_mock::MockHost;

thread_local! {
    static HOST: &'static MockHost = MockHost::leak(4);
}

/// The one mock host of this thread, which outlives all inputs.
pub fn host() -> &'static MockHost {
    HOST.with(|host| *host)
}
