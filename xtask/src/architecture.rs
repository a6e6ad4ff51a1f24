// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two architectures that guests' kernels and programs are made for.

/// What a guest's kernel and programs are made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
    /// 32-bit x86.
    I386,
}

impl Architecture {
    /// The architecture in the name of a package, and the name without it: `NAME:i386` as Debian
    /// writes it; what has no such suffix is 64-bit.
    pub fn split(package: &str) -> (&str, Self) {
        match package.strip_suffix(Self::I386.suffix()) {
            Some(name) => (name, Self::I386),
            None => (package, Self::Amd64),
        }
    }

    /// What [`split`](Self::split) takes off.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Amd64 => "",
            Self::I386 => ":i386",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages_may_have_an_architecture() {
        assert_eq!(Architecture::split("busybox-static"), ("busybox-static", Architecture::Amd64));
        let kernel = Architecture::split("linux-image-686-pae:i386");
        assert_eq!(kernel, ("linux-image-686-pae", Architecture::I386));
    }
}
