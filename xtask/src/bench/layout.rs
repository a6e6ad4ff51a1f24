// SPDX-License-Identifier: MIT OR Apache-2.0
//! How tables of results are laid out. The first line is the head, and the first column names what
//! was measured.

/// For a terminal: the first column to the left, the others to the right.
pub fn text(lines: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len))
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            match index {
                0 => text.push_str(&format!("{cell:<width$}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push('\n');
    }
    text
}

/// For the book: the names in the first column as code.
pub fn markdown(lines: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        match index {
            0 => {
                text.push_str(&format!("| {} |\n", line.join(" | ")));
                text.push_str(&format!("|---|{}\n", "---:|".repeat(line.len() - 1)));
            }
            _ => text.push_str(&format!("| `{}` | {} |\n", line[0], line[1..].join(" | "))),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Vec<String>> {
        [["loop", "exits"], ["fork-exec", "7"]]
            .map(|line| line.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(text(&lines()), "loop       exits\nfork-exec      7\n");
    }

    #[test]
    fn the_book_gets_names_as_code() {
        assert_eq!(markdown(&lines()), "| loop | exits |\n|---|---:|\n| `fork-exec` | 7 |\n");
    }
}
