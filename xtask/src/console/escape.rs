// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ctrl-A X.

/// The key that starts a command to the console itself.
const ESCAPE: u8 = 0x01;

/// Finds commands among the keys typed.
#[derive(Debug, Default)]
pub struct Escape {
    pending: bool,
}

/// What to do with the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    /// Goes to the guest.
    pub forward: Vec<u8>,
    /// Ctrl-A X was typed; nothing after it counts.
    pub quit: bool,
}

impl Escape {
    /// Takes the next keys. Ctrl-A twice sends one; before any other key than X it is sent as
    /// it is.
    pub fn push(&mut self, keys: &[u8]) -> Keys {
        let mut forward = Vec::with_capacity(keys.len());
        for &key in keys {
            match (std::mem::take(&mut self.pending), key) {
                (false, ESCAPE) => self.pending = true,
                (false, key) => forward.push(key),
                (true, ESCAPE) => forward.push(ESCAPE),
                (true, b'x' | b'X') => return Keys { forward, quit: true },
                (true, key) => forward.extend([ESCAPE, key]),
            }
        }
        Keys { forward, quit: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(parts: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut escape = Escape::default();
        let mut all = Vec::new();
        for part in parts {
            let keys = escape.push(part);
            all.extend(keys.forward);
            if keys.quit {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn ctrl_a_x_quits_even_in_parts() {
        assert_eq!(forward(&[b"ab\x01xcd"]), (b"ab".to_vec(), true));
        assert_eq!(forward(&[b"ab\x01", b"X"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn other_uses_of_ctrl_a_reach_the_guest() {
        assert_eq!(forward(&[b"\x01\x01x"]), (b"\x01x".to_vec(), false));
        assert_eq!(forward(&[b"\x01", b"c"]), (b"\x01c".to_vec(), false));
        assert_eq!(forward(&[b"x\x18\x03"]), (b"x\x18\x03".to_vec(), false));
    }
}
