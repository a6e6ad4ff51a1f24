// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shadow MMU against a model of the guest.
