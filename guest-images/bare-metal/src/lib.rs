// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small guests that test one area of CPU or platform behaviour each, from inside.
//!
//! They run unchanged on bare QEMU, which says what hardware does, and inside an Alcazar VM.
//! `README.md` lists them with their options. Built for any other target than
//! `x86_64-unknown-none` this crate is empty.
#![cfg_attr(target_os = "none", no_std)]

// Shared with the benchmark guests in `benches/`; no interface beyond this workspace.
#[cfg(target_os = "none")]
#[doc(hidden)]
#[macro_use]
pub mod rt;

#[cfg(target_os = "none")]
pub mod guests;

#[cfg(target_os = "none")]
pub use rt::boot::Guest;

/// Makes the binary run the module of [`guests`] with that name, or a function of another crate.
#[cfg(target_os = "none")]
#[macro_export]
macro_rules! guest {
    ($name:ident) => {
        $crate::guest!($name, $crate::guests::$name::run);
    };
    ($name:ident, $main:path) => {
        /// What the runtime calls once the machine is set up.
        #[unsafe(no_mangle)]
        static GUEST: $crate::Guest = $crate::Guest { main: $main };
    };
}

/// Makes the binary say that it runs as a guest only.
#[cfg(not(target_os = "none"))]
#[macro_export]
macro_rules! guest {
    ($name:ident $(, $main:path)?) => {
        fn main() -> std::process::ExitCode {
            eprintln!(concat!(
                stringify!($name),
                " is a guest: build it with --target x86_64-unknown-none and boot it in a VM"
            ));
            std::process::ExitCode::FAILURE
        }
    };
}
