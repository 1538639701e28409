//! From logits to tokens: penalties and the draw, row by row, for any machine.

use std::collections::HashMap;

use gainsay_arithmetic::sampling::{Draw, Penalties};
use gainsay_arithmetic::{sampling, store};
use gainsay_program::Sampling;

/// The tokens before those that are to be chosen, as penalties count them.
pub(crate) struct Before<'a> {
    sampling: &'a Sampling,
    /// How often each token is in the answer; 0 for a token of the prompt alone.
    counts: HashMap<u32, u32>,
    /// Tokens counted so far.
    seen: usize,
}

impl<'a> Before<'a> {
    /// No tokens yet.
    pub(crate) fn new(sampling: &'a Sampling) -> Self {
        Self { sampling, counts: HashMap::new(), seen: 0 }
    }

    /// Whether no token's logit depends on the tokens before: each step would give back what it is given.
    fn is_neutral(&self) -> bool {
        self.sampling.penalties() == Penalties { repetition: 1.0, presence: 0.0, frequency: 0.0 }
    }

    /// Counts on to the end of `tokens`, which begin with those counted before; the first `prompt` are the prompt.
    pub(crate) fn extend(&mut self, prompt: usize, tokens: &[u32]) {
        if self.is_neutral() {
            return;
        }
        for (index, &token) in tokens.iter().enumerate().skip(self.seen) {
            *self.counts.entry(token).or_default() += u32::from(index >= prompt);
        }
        self.seen = tokens.len();
    }

    /// Makes the stored logits of the next token the stored output of the op.
    pub(crate) fn penalize(&self, logits: &mut [f32]) {
        let penalties = self.sampling.penalties();
        for (&token, &count) in &self.counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                let bias = self.sampling.bias_of(token);
                *logit = store(sampling::penalize(*logit, true, count, &penalties, bias));
            }
        }
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize).filter(|_| !self.counts.contains_key(&token)) {
                *logit = store(sampling::penalize(*logit, false, 0, &penalties, Some(bias)));
            }
        }
    }
}

/// The token drawn from stored logits after penalties.
pub(crate) fn sample(logits: &[f32], draw: &Draw) -> u32 {
    sampling::sample(logits, draw)
}
