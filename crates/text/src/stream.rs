//! Text that arrives in pieces which cut through characters, and ends where a stop string begins.

/// Turns bytes into text as they come.
///
/// All that it gives out, put together, is the lossy UTF-8 reading of the bytes before the first stop string, or of all
/// bytes where there is none. A character is given out once it is whole, and what may be the beginning of a stop
/// string once it turns out not to be.
#[derive(Debug, Clone)]
pub struct TextStream {
    stops: Vec<Vec<u8>>,
    pending: Vec<u8>,
    stopped: bool,
}

impl TextStream {
    /// A stream that ends at the first of these stop strings. Empty ones stop nothing.
    #[must_use]
    pub fn new(stops: &[Vec<u8>]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, pending: Vec::new(), stopped: false }
    }

    /// Takes bytes; the text that is certain now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.pending.extend_from_slice(bytes);
        if let Some(start) = self.first_stop() {
            self.pending.truncate(start);
            self.stopped = true;
            return self.finish();
        }
        let certain = self.pending.len() - self.held_back();
        let whole = whole_characters(&self.pending[..certain]);
        let text = String::from_utf8_lossy(&self.pending[..whole]).into_owned();
        self.pending.drain(..whole);
        text
    }

    /// Nothing more comes: what was held back.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }

    /// Whether a stop string has come.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The text of bytes that are all there.
    #[must_use]
    pub fn whole(stops: &[Vec<u8>], bytes: &[u8]) -> String {
        let mut stream = Self::new(stops);
        let mut text = stream.push(bytes);
        text.push_str(&stream.finish());
        text
    }

    fn first_stop(&self) -> Option<usize> {
        let find = |stop: &Vec<u8>| self.pending.windows(stop.len()).position(|window| window == stop);
        self.stops.iter().filter_map(find).min()
    }

    /// Bytes at the end that may be the beginning of a stop string.
    fn held_back(&self) -> usize {
        let longest = |stop: &Vec<u8>| {
            let most = (stop.len() - 1).min(self.pending.len());
            (1..=most).rev().find(|&length| self.pending.ends_with(&stop[..length])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

/// How many of the bytes come before a character that is cut off at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else { return 0 };
    let cut = last.invalid();
    // An invalid sequence at the very end may be the beginning of a character; it is where nothing but its end is missing.
    let is_cut = !cut.is_empty() && std::str::from_utf8(cut).is_err_and(|error| error.error_len().is_none());
    bytes.len() - if is_cut { cut.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_character_in_pieces_comes_out_whole() {
        let mut stream = TextStream::new(&[]);
        let pieces: Vec<String> = "a😀é".bytes().map(|byte| stream.push(&[byte])).collect();
        assert_eq!(pieces, ["a", "", "", "", "😀", "", "é"]);
        assert_eq!(stream.push(b"\xf0\x9f"), "");
        assert_eq!(stream.push(b"x"), "\u{fffd}x");
        assert_eq!(stream.push(b"\xf0"), "");
        assert_eq!(stream.finish(), "\u{fffd}");
    }

    #[test]
    fn a_stop_string_and_what_follows_is_no_part_of_the_text() {
        let mut stream = TextStream::new(&stops(&["END", "\n\n", ""]));
        assert_eq!(stream.push(b"one E"), "one ");
        assert_eq!(stream.push(b"N"), "");
        assert_eq!(stream.push(b"x\n"), "ENx");
        assert_eq!(stream.push(b"two EN"), "\ntwo ");
        assert!(!stream.is_stopped());
        assert_eq!(stream.push(b"D three\n\n"), "");
        assert!(stream.is_stopped());
        assert_eq!(stream.push(b"four") + &stream.finish(), "");
        assert_eq!(TextStream::whole(&stops(&["b", "ab"]), b"xaby"), "x");
    }

    proptest! {
        /// What a client reads from a stream is what `GET /v1/jobs/{id}` shows later.
        #[test]
        fn pieces_put_together_are_the_whole(
            bytes in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0xf0), Just(0x9f), Just(0x98), Just(0x80), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..12),
            stop in prop_oneof![Just(vec![]), Just(stops(&["ab"])), Just(stops(&["aab", "bb"]))],
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut stream, mut text, mut from) = (TextStream::new(&stop), String::new(), 0);
            for cut in cuts {
                text.push_str(&stream.push(&bytes[from..cut]));
                from = cut;
            }
            text.push_str(&stream.finish());
            let find = |stop: &Vec<u8>| bytes.windows(stop.len()).position(|window| window == stop);
            let end = stop.iter().filter_map(find).min();
            if stop.len() < 2 {
                prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]));
            }
            if end.is_none() {
                prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
            }
        }
    }
}
