// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes the guest's marker lines out of its console output.
//!
//! A marker is `@alcazar NONCE WORD NUMBER` and a line feed, perhaps after a carriage return.
//! It may follow output that does not end its line. See `guest-images/linux/rc`.

/// Longest marker after its prefix: word, number and line end.
const LONGEST_TAIL: usize = 48;

/// What the guest says by a marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marker {
    /// `/init` was reached, at this value of its time-stamp counter.
    Init(u64),
    /// The kernel's clock was there then, in nanoseconds.
    Clock(u64),
    /// The shell is about to read its input.
    Ready,
    /// The output of the command follows.
    Begin,
    /// The command or shell ended with this status.
    End(u8),
}

impl Marker {
    fn parse(tail: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(tail).ok()?.split_whitespace();
        let (word, number) = (words.next()?, words.next()?);
        let marker = match word {
            "init" => Self::Init(number.parse().ok()?),
            "clock" => Self::Clock(number.parse().ok()?),
            "ready" => Self::Ready,
            "begin" => Self::Begin,
            "end" => Self::End(number.parse().ok()?),
            _ => return None,
        };
        words.next().is_none().then_some(marker)
    }
}

/// A piece of what came from the guest, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Output proper.
    Text(Vec<u8>),
    /// A marker.
    Marker(Marker),
}

/// Splits a stream that arrives in arbitrary parts.
#[derive(Debug)]
pub struct Filter {
    prefix: Option<Vec<u8>>,
    held: Vec<u8>,
}

impl Filter {
    /// Looks for markers with this nonce; without one everything is text.
    pub fn new(nonce: Option<&str>) -> Self {
        let prefix = nonce.map(|nonce| format!("@alcazar {nonce} ").into_bytes());
        Self { prefix, held: Vec::new() }
    }

    /// Takes the next bytes and gives what is certain by now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.held.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some(piece) = self.next_piece() {
            pieces.push(piece);
        }
        pieces
    }

    /// What is still held back when the stream ends.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn next_piece(&mut self) -> Option<Piece> {
        let Some(prefix) = &self.prefix else { return self.text(self.held.len()) };
        let at = find(&self.held, prefix);
        let start = match at {
            Some(0) => return self.marker_or_text(prefix.len()),
            Some(start) => start,
            None => self.held.len() - overlap(&self.held, prefix),
        };
        self.text(start)
    }

    /// With a prefix at the start: the marker if it is whole and well formed. The first byte of
    /// what only looks like one is text.
    fn marker_or_text(&mut self, prefix: usize) -> Option<Piece> {
        let tail = self.held.get(prefix..)?;
        let Some(end) = tail.iter().position(|&byte| byte == b'\n') else {
            return if tail.len() > LONGEST_TAIL { self.text(1) } else { None };
        };
        let Some(marker) = tail.get(..end).and_then(Marker::parse) else { return self.text(1) };
        self.held.drain(..=prefix + end);
        Some(Piece::Marker(marker))
    }

    fn text(&mut self, length: usize) -> Option<Piece> {
        (length > 0).then(|| Piece::Text(self.held.drain(..length).collect()))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Length of the longest end of `text` that is a beginning of `prefix`.
fn overlap(text: &[u8], prefix: &[u8]) -> usize {
    (1..prefix.len().min(text.len() + 1))
        .rev()
        .find(|&length| prefix.get(..length).is_some_and(|start| text.ends_with(start)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `parts` and joins neighbouring texts.
    fn run(parts: &[&[u8]]) -> (Vec<Piece>, Vec<u8>) {
        let mut filter = Filter::new(Some("00ff"));
        let mut joined: Vec<Piece> = Vec::new();
        for piece in parts.iter().flat_map(|part| filter.push(part)) {
            match (joined.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(text)) => before.extend(text),
                (_, piece) => joined.push(piece),
            }
        }
        (joined, filter.finish())
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    #[test]
    fn markers_are_taken_out_wherever_they_stand() {
        let (pieces, rest) = run(&[b"boot\r\n@alcazar 00ff begin 0\r\nno line end\
                                     @alcazar 00ff end 7\nafter"]);
        let expected = [
            text("boot\r\n"),
            Piece::Marker(Marker::Begin),
            text("no line end"),
            Piece::Marker(Marker::End(7)),
            text("after"),
        ];
        assert_eq!((pieces.as_slice(), rest.as_slice()), (expected.as_slice(), b"".as_slice()));
    }

    #[test]
    fn what_only_looks_like_a_marker_is_text() {
        for looks in [
            "@alcazar 0bad end 7\n",
            "@alcazar 00ff end 256\n",
            "@alcazar 00ff end\n",
            "@alcazar 00ff end 7 7\n",
            "@alcazar 00ff stop 1\n",
            "@alcazar 00ff end 000000000000000000000000000000000000000000000000000000",
        ] {
            assert_eq!(run(&[looks.as_bytes()]).0, [text(looks)], "{looks}");
        }
    }

    #[test]
    fn the_end_of_the_stream_gives_up_what_was_held() {
        assert_eq!(run(&[b"x@alcazar 00"]), (vec![text("x")], b"@alcazar 00".to_vec()));
        assert_eq!(run(&[b"@alcazar 00ff e"]), (vec![], b"@alcazar 00ff e".to_vec()));
    }

    #[test]
    fn without_a_nonce_all_is_text() {
        let mut filter = Filter::new(None);
        assert_eq!(filter.push(b"@alcazar"), [text("@alcazar")]);
        assert_eq!(filter.push(b""), []);
    }

    proptest! {
        #[test]
        fn arrival_in_parts_changes_nothing(cuts in proptest::collection::vec(0_usize..80, 0..6)) {
            let whole: &[u8] = b"a@alc@alcazar 00ff init 12\n@@alcazar 00ff \
                                 @alcazar 00ff ready 0\n\xFF\x00tail\n";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            prop_assert_eq!(run(&parts), run(&[whole]));
        }
    }
}
