// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text that cannot end its line.

use core::fmt::{self, Write};

/// Passes text on with a dot for each control character but a tab: a message may hold names from
/// a bundle, and none of them begins a line of the log, nor drives the terminal that shows it.
pub struct OneLine<'a>(pub &'a mut dyn Write);

impl Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let breaks = |c: char| c.is_control() && c != '\t';
        let mut rest = text;
        while let Some((plain, behind)) = rest.split_once(breaks) {
            self.0.write_str(plain)?;
            self.0.write_char('.')?;
            rest = behind;
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    #[test]
    fn no_name_begins_a_line() {
        let mut line = String::new();
        let (name, end) = ("a\n@exit 0\r\u{1b}[2J\u{9b}\u{7f}\0", '\n');
        write!(OneLine(&mut line), "VM '{name}': ü\tno memory{end}").unwrap();
        assert_eq!(line, "VM 'a.@exit 0..[2J...': ü\tno memory.");
    }

    #[test]
    fn the_end_of_the_text_is_told() {
        struct Full;
        impl Write for Full {
            fn write_str(&mut self, _: &str) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        assert!(OneLine(&mut Full).write_str("text").is_err());
    }
}
