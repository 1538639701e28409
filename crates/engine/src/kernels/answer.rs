//! From logits to tokens: penalties and the draw, row by row, for any machine.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use gainsay_arithmetic::sampling::{Candidate, Draw, Penalties};
use gainsay_arithmetic::{sampling, store};
use gainsay_program::Sampling;

/// How often tokens are in a sequence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// How often each token is in the answer; 0 for a token of the prompt alone.
    counts: HashMap<u32, u32>,
    /// Tokens counted so far.
    seen: usize,
}

impl Counts {
    /// Counts on to the end of `tokens`, which begin with those counted before; the first `prompt` are the prompt. Counts
    /// nothing where no token's logit depends on the tokens before.
    pub(crate) fn extend(&mut self, sampling: &Sampling, prompt: usize, tokens: &[u32]) {
        if is_neutral(sampling) {
            return;
        }
        for (index, &token) in tokens.iter().enumerate().skip(self.seen) {
            *self.counts.entry(token).or_default() += u32::from(index >= prompt);
        }
        self.seen = tokens.len();
    }
}

/// Whether penalties give back what they are given.
pub(crate) fn is_neutral(sampling: &Sampling) -> bool {
    sampling.penalties() == Penalties { repetition: 1.0, presence: 0.0, frequency: 0.0 }
}

/// The tokens before those that are to be chosen, as penalties count them.
pub(crate) struct Before<'a> {
    sampling: &'a Sampling,
    counted: Cow<'a, Counts>,
}

impl<'a> Before<'a> {
    /// The tokens of `counted` if they are some of the first `most`, else none yet.
    pub(crate) fn new(sampling: &'a Sampling, counted: Option<&'a Counts>, most: usize) -> Self {
        let counted = counted.filter(|counted| counted.seen <= most);
        Self { sampling, counted: counted.map_or_else(Cow::default, Cow::Borrowed) }
    }

    /// As [`Counts::extend`].
    pub(crate) fn extend(&mut self, prompt: usize, tokens: &[u32]) {
        if self.counted.seen < tokens.len() && !is_neutral(self.sampling) {
            self.counted.to_mut().extend(self.sampling, prompt, tokens);
        }
    }

    /// Makes the stored logits of the next token the stored output of the op.
    pub(crate) fn penalize(&self, logits: &mut [f32]) {
        let penalties = self.sampling.penalties();
        let counts = &self.counted.counts;
        for (&token, &count) in counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                let bias = self.sampling.bias_of(token);
                *logit = store(sampling::penalize(*logit, true, count, &penalties, bias));
            }
        }
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize).filter(|_| !counts.contains_key(&token)) {
                *logit = store(sampling::penalize(*logit, false, 0, &penalties, Some(bias)));
            }
        }
    }
}

/// Logits of which the greatest stands for all, in the search for candidates.
const GROUP: usize = 16;

/// The token drawn from stored logits after penalties: `arithmetic`'s, whose order of candidates is found without going
/// through a heap. The `top_k`-th greatest of the greatest of groups is a bound that as many logits reach; only those are
/// put in order.
pub(crate) fn sample(logits: &[f32], sampling: &sampling::Sampling, draw: &Draw) -> u32 {
    let limit = (sampling.top_k as usize).clamp(1, sampling::MAX_CANDIDATES);
    let is_drawn = sampling.temperature >= sampling::GREEDY_BELOW;
    if !is_drawn || logits.len() < 2 * limit {
        return sampling::sample(logits, sampling, draw);
    }
    let group = (logits.len() / limit).min(GROUP);
    // A logit that is NaN never replaces the greatest, which is −∞ then, as its quotient is.
    let greatest = |group: &[f32]| {
        let greater = |greatest: f32, &x: &f32| if x > greatest { x } else { greatest };
        group.iter().fold(f32::NEG_INFINITY, greater)
    };
    let mut bounds: Vec<f32> = logits.chunks(group).map(greatest).collect();
    let (_, &mut bound, _) = bounds.select_nth_unstable_by(limit - 1, |a, b| b.total_cmp(a));
    // Dividing keeps the order of logits, but may make some equal: the bound is that of the quotients.
    let bound = Candidate::new(bound, sampling, 0).z;
    let mut candidates = Vec::with_capacity(2 * limit);
    for (id, &logit) in (0..).zip(logits) {
        let candidate = Candidate::new(logit, sampling, id);
        if candidate.z >= bound {
            candidates.push(candidate);
        }
    }
    let order = |a: &Candidate, b: &Candidate| if a.before(b) { Ordering::Less } else { Ordering::Greater };
    if candidates.len() > limit {
        candidates.select_nth_unstable_by(limit - 1, order);
        candidates.truncate(limit);
    }
    candidates.sort_unstable_by(order);
    sampling::choose(&candidates, sampling, draw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::Random;

    #[test]
    fn tokens_are_arithmetics() {
        let mut random = Random(12);
        let mut drawn = 0;
        for round in 0..400 {
            let len = [1, 40, 100, 3000, 5000][round % 5];
            let logits: Vec<f32> = (0..len)
                .map(|_| match random.bits() % 50 {
                    0 if round % 3 == 0 => f32::NAN,
                    0 if round % 7 == 0 => f32::INFINITY,
                    1 => f32::NEG_INFINITY,
                    // Many that are equal.
                    2..20 => (random.unit() * 4.0).round(),
                    _ => random.unit() * 5.0,
                })
                .collect();
            let sampling = sampling::Sampling {
                temperature: [0.7, 0.001, 1.5, 100.0][round % 4],
                top_k: [1, 5, 40, 1024, 2000][round / 5 % 5],
                top_p: [1.0, 0.9, 0.0][round % 3],
                min_p: [0.0, 0.05][round % 2],
            };
            let draw = Draw { seed: random.bits(), choice: 1, position: round as u32 };
            let expected = sampling::sample(&logits, &sampling, &draw);
            assert_eq!(sample(&logits, &sampling, &draw), expected, "round {round}, {sampling:?}");
            drawn += usize::from(expected != 0);
        }
        assert!(drawn > 100);
    }
}
