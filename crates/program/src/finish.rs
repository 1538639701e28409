//! The length rule: where an answer ends. Worker, coordinator and whoever judges again decide it alike, from token ids and
//! the tokens' bytes alone.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::{GenerationRequest, StopRules};

/// The bytes that each token stands for in an answer: a function of the model's tokenizer.
pub trait TokenBytes {
    /// The token's bytes; none for an id that stands for no text.
    fn bytes(&self, id: u32) -> &[u8];
}

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FinishReason {
    /// Its last token is an end token of the model.
    Eos,
    /// Its last token completes a stop string.
    StopString,
    /// It has as many tokens as were asked for.
    Length,
}

/// How an answer breaks the length rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LengthFault {
    /// There is no token.
    #[error("the answer holds no token")]
    Empty,
    /// Nothing ends it where it ends.
    #[error("the answer stops after {tokens} tokens, where nothing ends it")]
    TooShort {
        /// Its tokens.
        tokens: usize,
    },
    /// It goes on after its end.
    #[error("the answer ends with token {end}, but goes on to {tokens} tokens")]
    TooLong {
        /// Tokens up to and with the one that ends it.
        end: usize,
        /// Its tokens.
        tokens: usize,
    },
}

impl<T: TokenBytes + ?Sized> TokenBytes for &T {
    fn bytes(&self, id: u32) -> &[u8] {
        T::bytes(self, id)
    }
}

impl<T: TokenBytes + ?Sized> TokenBytes for Arc<T> {
    fn bytes(&self, id: u32) -> &[u8] {
        T::bytes(self, id)
    }
}

/// Watches an answer grow and says when it has ended.
pub struct StopWatch<R, I, B> {
    rules: R,
    stop_ids: I,
    bytes_of: B,
    /// The last bytes of the answer: as many as a stop string may have begun with.
    tail: Vec<u8>,
    longest: usize,
    tokens: u32,
}

impl<R: Borrow<StopRules>, I: AsRef<[u32]>, B: TokenBytes> StopWatch<R, I, B> {
    /// Watches an answer under `rules`, from a model with the end tokens `stop_ids`.
    pub fn new(rules: R, stop_ids: I, bytes_of: B) -> Self {
        let longest = rules.borrow().stop.iter().map(Vec::len).max().unwrap_or(0);
        Self { rules, stop_ids, bytes_of, tail: Vec::new(), longest, tokens: 0 }
    }

    /// Takes the answer's next token. An end token comes before a stop string, and that before the number of tokens.
    pub fn push(&mut self, token: u32) -> Option<FinishReason> {
        self.tokens = self.tokens.saturating_add(1);
        let rules = self.rules.borrow();
        let (ends, max_tokens) =
            (!rules.ignore_eos && self.stop_ids.as_ref().contains(&token), rules.max_tokens);
        if ends {
            return Some(FinishReason::Eos);
        }
        if self.completes_stop(token) {
            return Some(FinishReason::StopString);
        }
        (self.tokens >= max_tokens).then_some(FinishReason::Length)
    }

    fn completes_stop(&mut self, token: u32) -> bool {
        if self.longest == 0 {
            return false;
        }
        self.tail.extend_from_slice(self.bytes_of.bytes(token));
        let found = self.rules.borrow().stop.iter().any(|stop| contains(&self.tail, stop));
        let old = self.tail.len().saturating_sub(self.longest - 1);
        self.tail.drain(..old);
        found
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Why the answer ended, if it ends where the request and the model's end tokens end it.
pub fn finish_reason<B: TokenBytes + ?Sized>(
    request: &GenerationRequest,
    stop_ids: &[u32],
    answer: &[u32],
    bytes_of: &B,
) -> Result<FinishReason, LengthFault> {
    let mut watch = StopWatch::new(&request.stop, stop_ids, bytes_of);
    let end = answer.iter().enumerate().find_map(|(index, &token)| Some((index + 1, watch.push(token)?)));
    let tokens = answer.len();
    match end {
        None if tokens == 0 => Err(LengthFault::Empty),
        None => Err(LengthFault::TooShort { tokens }),
        Some((end, reason)) if end == tokens => Ok(reason),
        Some((end, _)) => Err(LengthFault::TooLong { end, tokens }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    /// Token `n` is the n-th of these.
    struct Words(&'static [&'static str]);

    impl TokenBytes for Words {
        fn bytes(&self, id: u32) -> &[u8] {
            self.0.get(id as usize).map_or(&[], |word| word.as_bytes())
        }
    }

    const WORDS: Words = Words(&["a", "b", "ab", "", "</", "s>", "x</s>y", "é"]);

    fn request(max_tokens: u32, stop: &[&str], ignore_eos: bool) -> GenerationRequest {
        let stop = stop.iter().map(|stop| stop.as_bytes().to_vec()).collect();
        let stop = StopRules { max_tokens, stop, ignore_eos };
        GenerationRequest { prompt: vec![0], sampling: Sampling::default(), stop }
    }

    fn ends(request: &GenerationRequest, answer: &[u32]) -> Result<FinishReason, LengthFault> {
        finish_reason(request, &[3], answer, &WORDS)
    }

    #[test]
    fn an_answer_ends_at_what_comes_first_and_nowhere_else() {
        let plain = request(3, &[], false);
        assert_eq!(ends(&plain, &[0, 1, 2]), Ok(FinishReason::Length));
        assert_eq!(ends(&plain, &[0, 3]), Ok(FinishReason::Eos));
        assert_eq!(ends(&plain, &[0, 1, 3]), Ok(FinishReason::Eos), "an end token before the length");
        assert_eq!(ends(&plain, &[]), Err(LengthFault::Empty));
        assert_eq!(ends(&plain, &[0, 1]), Err(LengthFault::TooShort { tokens: 2 }));
        assert_eq!(ends(&plain, &[0, 1, 2, 0]), Err(LengthFault::TooLong { end: 3, tokens: 4 }));
        assert_eq!(ends(&plain, &[3, 1]), Err(LengthFault::TooLong { end: 1, tokens: 2 }));
        let deaf = request(2, &[], true);
        assert_eq!(ends(&deaf, &[3, 3]), Ok(FinishReason::Length));
        assert_eq!(ends(&deaf, &[3]), Err(LengthFault::TooShort { tokens: 1 }));
    }

    #[test]
    fn a_stop_string_is_found_within_and_across_tokens() {
        let stops = request(9, &["</s>", "bab"], false);
        for answer in [&[0, 4, 5][..], &[6], &[1, 0, 1], &[1, 2], &[2, 2], &[0, 7, 4, 5]] {
            assert_eq!(ends(&stops, answer), Ok(FinishReason::StopString), "{answer:?}");
        }
        assert_eq!(ends(&stops, &[4, 0, 5]), Err(LengthFault::TooShort { tokens: 3 }));
        assert_eq!(ends(&stops, &[4, 5, 0]), Err(LengthFault::TooLong { end: 2, tokens: 3 }));
        assert_eq!(ends(&request(2, &["</s>"], false), &[4, 5]), Ok(FinishReason::StopString));
    }

    #[test]
    fn half_a_character_may_be_a_stop_string() {
        let bytes = StopRules { max_tokens: 5, stop: vec![vec![0xc3]], ignore_eos: false };
        assert_eq!(StopWatch::new(&bytes, &[] as &[u32], &WORDS).push(7), Some(FinishReason::StopString));
    }
}
