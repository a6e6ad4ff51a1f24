// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses as the guest sees them.
//!
//! Guest-physical, guest-virtual and host-physical addresses are three types, so that one
//! cannot be taken for another. Arithmetic on them is checked.

use core::fmt;

/// Size of the smallest page of the architecture, in bytes.
pub const PAGE_SIZE: u64 = host_iface::PAGE_SIZE;

macro_rules! guest_address {
    ($(#[$doc:meta])* $name:ident, $tag:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw address.
            pub const fn new(address: u64) -> Self {
                Self(address)
            }

            /// The raw address.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on, or `None` if it would wrap.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(address) => Some(Self(address)),
                    None => None,
                }
            }

            /// The address rounded down to a multiple of `alignment`, a power of two.
            pub const fn align_down(self, alignment: u64) -> Self {
                Self(self.0 & !(alignment - 1))
            }

            /// The offset from the last multiple of `alignment`, a power of two.
            pub const fn offset_in(self, alignment: u64) -> u64 {
                self.0 & (alignment - 1)
            }

            /// True if the address is a multiple of `alignment`, a power of two.
            pub const fn is_aligned(self, alignment: u64) -> bool {
                self.offset_in(alignment) == 0
            }

            /// Bytes from here to the end of the 4 KiB page; 1 to 4096.
            pub const fn left_in_page(self) -> u64 {
                PAGE_SIZE - self.offset_in(PAGE_SIZE)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

guest_address!(
    /// A guest-physical address: what the guest takes for the physical address space.
    GuestPhysAddr,
    "GPA"
);

guest_address!(
    /// A guest-virtual (linear) address: before translation by the guest's own page tables.
    GuestVirtAddr,
    "GVA"
);

impl GuestVirtAddr {
    /// The address `bytes` further on, wrapping as linear addresses do.
    pub const fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// True if bits 63 to 47 are all equal (48-bit canonical form; AMD APM vol. 2, 5.3.1).
    pub const fn is_canonical(self) -> bool {
        let upper = (self.0 as i64) >> 47;
        upper == 0 || upper == -1
    }
}
