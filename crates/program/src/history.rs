//! What the ops that draw a token know besides the logits: the tokens before it, and the job's parameters.

use gainsay_arithmetic::sampling as arithmetic;

use crate::{JobInput, Sampling};

/// One row of an answer: the tokens before the one that is drawn there.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    sampling: &'a Sampling,
    prompt: &'a [u32],
    answer: &'a [u32],
}

impl<'a> History<'a> {
    /// Before the token of row `row` of the job's answer; nothing where the answer has no such row.
    pub fn of(job: &'a JobInput, row: u64) -> Option<Self> {
        let (answer, last) = (job.answer()?, job.token_of_answer(row)?);
        let before = job.token_ids().get(..=usize::try_from(last).ok()?)?;
        let (prompt, drawn) = before.split_at_checked(answer.prompt as usize)?;
        Some(Self::new(&answer.sampling, prompt, drawn))
    }

    /// After these tokens of prompt and answer.
    pub const fn new(sampling: &'a Sampling, prompt: &'a [u32], answer: &'a [u32]) -> Self {
        Self { sampling, prompt, answer }
    }

    /// The index, in its sequence, of the token that is drawn.
    pub const fn position(&self) -> u32 {
        (self.prompt.len() + self.answer.len()) as u32
    }

    /// The logit of a token after penalties and bias, before storing.
    pub fn penalize(&self, logit: f32, token: u32) -> f32 {
        let count = self.answer.iter().filter(|&&drawn| drawn == token).count() as u32;
        let occurred = count > 0 || self.prompt.contains(&token);
        let bias = self.sampling.bias_of(token);
        arithmetic::penalize(logit, occurred, count, &self.sampling.penalties(), bias)
    }

    /// The token drawn from logits that have been penalized.
    pub fn sample(&self, logits: &[f32]) -> u32 {
        arithmetic::sample(logits, &self.sampling.candidates(), &self.sampling.draw(self.position()))
    }
}
