//! From logits to tokens: `sampling.cu`.

use std::ops::Range;

use crate::{At, Launch, Shape, launch};

/// How penalties and biases change the logits of sequences: for each token that occurs in one or is biased, whether it is in
/// the prompt, its bias, and where it is in the answer. That is as long as the sequence, whatever number of rows of its
/// answer are computed: how often a token occurs before the one that a row gives follows from the positions.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    words: Vec<u32>,
    positions: Vec<u32>,
}

impl Changes {
    /// Words of a change: token, flags, bias, first position and end of the positions.
    const WORDS: usize = 5;
    const IN_PROMPT: u32 = 1;
    const BIASED: u32 = 2;

    /// Adds a sequence: its prompt, what is known of its answer, and its biases, each token once. Returns its changes, for
    /// [`PenalizedRow::changes`]. Where no penalty is set, prompt and answer may be left empty: they change nothing.
    pub fn add(&mut self, prompt: &[u32], answer: &[u32], biases: &[(u32, f32)]) -> Range<u32> {
        // Sequences are long, and this is done in every step: where tokens occur, the prompt as place 0, is put in order at once.
        let in_prompt = prompt.iter().map(|&token| u64::from(token) << 32);
        let in_answer = (1_u64..).zip(answer).map(|(place, &token)| u64::from(token) << 32 | place);
        let mut occurrences: Vec<u64> = in_prompt.chain(in_answer).collect();
        occurrences.sort_unstable();
        let mut biases = biases.to_vec();
        biases.sort_unstable_by_key(|it| it.0);
        let mut biases = biases.into_iter().peekable();
        let first = self.len();
        for of_token in occurrences.chunk_by(|one, next| one >> 32 == next >> 32) {
            let token = (of_token[0] >> 32) as u32;
            while let Some((other, bias)) = biases.next_if(|it| it.0 < token) {
                self.push(other, &[], Some(bias));
            }
            let bias = biases.next_if(|it| it.0 == token).map(|it| it.1);
            self.push(token, of_token, bias);
        }
        for (token, bias) in biases {
            self.push(token, &[], Some(bias));
        }
        first..self.len()
    }

    /// Adds the change of a token that occurs at these places: in the prompt where the lower word is 0, else in the answer
    /// at the position before.
    fn push(&mut self, token: u32, occurrences: &[u64], bias: Option<f32>) {
        let places = || occurrences.iter().map(|&it| it as u32);
        let start = self.positions.len() as u32;
        self.positions.extend(places().filter(|&place| place > 0).map(|place| place - 1));
        let end = self.positions.len() as u32;
        let in_prompt = if places().next() == Some(0) { Self::IN_PROMPT } else { 0 };
        let biased = if bias.is_some() { Self::BIASED } else { 0 };
        self.words.extend([token, in_prompt | biased, bias.unwrap_or(0.0).to_bits(), start, end]);
    }

    fn len(&self) -> u32 {
        (self.words.len() / Self::WORDS) as u32
    }

    /// What the kernel reads of the changes.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// What it reads of the positions.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }
}

/// A row of logits to be changed.
#[derive(Debug, Clone, PartialEq)]
pub struct PenalizedRow {
    /// The changes of its sequence.
    pub changes: Range<u32>,
    /// Tokens of the answer before the one that it gives.
    pub before: u32,
    /// Divides positive logits, and multiplies others, of tokens in the prompt or the answer so far.
    pub repetition: f32,
    /// Subtracted once from the logit of a token that the answer so far holds.
    pub presence: f32,
    /// Subtracted for each time that the answer so far holds the token.
    pub frequency: f32,
}

impl PenalizedRow {
    /// What the kernel reads of it.
    pub fn words(&self) -> [u32; 6] {
        let Self { changes, before, repetition, presence, frequency } = self;
        let penalties = [repetition, presence, frequency].map(|x| x.to_bits());
        [changes.start, changes.end, *before, penalties[0], penalties[1], penalties[2]]
    }
}

/// `out`, `[rows, width]`, is the stored logits after penalties and biases. `changes` and `positions` are those of [`Changes`],
/// `rows` holds [`PenalizedRow::words`] of every row. At least one row.
pub fn penalize(
    logits: At<f32>,
    (changes, positions): (At<u32>, At<u32>),
    rows: At<u32>,
    out: At<f32>,
    (count, width): (u32, u32),
) -> Launch {
    const THREADS: u32 = 512;
    /// Logits of a row that a block takes.
    const TOKENS: u32 = 8192;
    let shape = Shape::grid([count, width.div_ceil(TOKENS), 1], THREADS);
    launch!("penalize", shape, logits, changes, positions, rows, out, width)
}

/// How a token is drawn from a row of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawnRow {
    /// Divides the logits; where it is small the greatest logit is taken.
    pub temperature: f32,
    /// Candidates kept.
    pub top_k: u32,
    /// Share of the candidates' sum after which the rest is cut.
    pub top_p: f32,
    /// Candidates less likely than this share of the likeliest are dropped.
    pub min_p: f32,
    /// The job's seed.
    pub seed: u64,
    /// Which of a request's choices it is.
    pub choice: u32,
    /// Index that the chosen token will have in its sequence.
    pub position: u32,
}

impl DrawnRow {
    /// What the kernel reads of it.
    pub const fn words(&self) -> [u32; 8] {
        let &Self { temperature, top_k, top_p, min_p, seed, choice, position } = self;
        let [top_p, min_p] = [top_p.to_bits(), min_p.to_bits()];
        [temperature.to_bits(), top_k, top_p, min_p, seed as u32, (seed >> 32) as u32, position, choice]
    }
}

/// `out[r]` is the token drawn from row `r` of the logits, `[rows, width]`, after penalties; `draws` holds
/// [`DrawnRow::words`] of every row. At least one row.
pub fn sample(logits: At<f32>, draws: At<u32>, out: At<u32>, (rows, width): (u32, u32)) -> Launch {
    const THREADS: u32 = 1024;
    launch!("sample", Shape::line(rows, THREADS), logits, draws, out, width)
}
