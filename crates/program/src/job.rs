//! What a model is run on.

use crate::Sampling;
use crate::limits::{MAX_JOB_TOKENS, MAX_OUTPUT_BYTES};
use crate::sampling::RequestError;

/// The token ids of a job's sequences, concatenated, with the offsets where sequences begin and end. For a generation
/// besides: where the answer begins, and how its tokens are drawn.
///
/// Every value holds these invariants: at least one sequence, none empty, at most [`MAX_JOB_TOKENS`] tokens. A generation
/// has one sequence, which begins with a prompt that is not empty.
/// Whether ids and lengths fit a model is [`ValidatedModel::check_job`](crate::ValidatedModel::check_job)'s question.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct JobInput {
    token_ids: Vec<u32>,
    offsets: Vec<u32>,
    answer: Option<Answer>,
}

/// What makes a job a generation. The answer that the program reproduces has a token for each position from the last of the
/// prompt on: its own last token is no input of the program.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Answer {
    /// Tokens of the prompt, at the beginning of the sequence; at least 1.
    pub prompt: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// One sequence of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sequence {
    /// Its index in the job.
    pub index: usize,
    /// Row of its first token.
    pub start: u64,
    /// Number of its tokens; never 0.
    pub len: u64,
}

/// Why a job cannot be run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JobError {
    /// The job holds no sequence.
    #[error("the job holds no sequence")]
    NoSequence,
    /// A sequence holds no token.
    #[error("sequence {sequence} is empty")]
    EmptySequence {
        /// Its index.
        sequence: usize,
    },
    /// All sequences together are too long.
    #[error("the job holds {tokens} tokens; at most {MAX_JOB_TOKENS} are allowed")]
    TooManyTokens {
        /// Their number.
        tokens: usize,
    },
    /// Offsets do not start at 0, do not ascend, or do not end at the number of tokens.
    #[error("offset {index} does not fit the token ids")]
    Offsets {
        /// The first offset that does not fit.
        index: usize,
    },
    /// A sequence is longer than the model takes.
    #[error("sequence {sequence} has {tokens} tokens; the model takes at most {max_sequence}")]
    SequenceTooLong {
        /// Its index.
        sequence: usize,
        /// Its length.
        tokens: u64,
        /// The model's limit.
        max_sequence: u32,
    },
    /// A generation without an answer has nothing to compute.
    #[error("the answer holds no token")]
    NoAnswer,
    /// A generation for an encoder, or an encoding for a language model.
    #[error("the model takes {}", if *generates { "prompts to continue" } else { "sequences to encode" })]
    Kind {
        /// Whether the model generates.
        generates: bool,
    },
    /// A parameter of the request is refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No claim could carry the answer.
    #[error("the answer would have {bytes} bytes; at most {MAX_OUTPUT_BYTES} are allowed")]
    OutputTooLong {
        /// Its length.
        bytes: u64,
    },
    /// A party would hold too much memory to show one of the layers.
    #[error(
        "one of the job's layers would take {bytes} bytes of memory; at most {} are allowed",
        crate::MAX_JOB_MEMORY
    )]
    TooMuchMemory {
        /// See [`ValidatedModel::job_memory`](crate::ValidatedModel::job_memory).
        bytes: u64,
    },
    /// A token id is outside the vocabulary.
    #[error("token {index} has id {id}; the model's vocabulary holds {vocabulary}")]
    UnknownToken {
        /// Its index in the concatenation.
        index: usize,
        /// Its id.
        id: u32,
        /// The model's limit.
        vocabulary: u32,
    },
}

impl JobInput {
    /// A job of these sequences, in order.
    pub fn new<S: AsRef<[u32]>>(sequences: impl IntoIterator<Item = S>) -> Result<Self, JobError> {
        let mut token_ids = Vec::new();
        let mut offsets = vec![0];
        for sequence in sequences {
            let sequence = sequence.as_ref();
            let tokens = token_ids.len().saturating_add(sequence.len());
            if tokens > MAX_JOB_TOKENS {
                return Err(JobError::TooManyTokens { tokens });
            }
            token_ids.extend_from_slice(sequence);
            offsets.push(token_ids.len() as u32);
        }
        Self::from_parts(token_ids, offsets)
    }

    /// A job from the concatenated ids and the offsets `0, …, token_ids.len()`, one more than there are sequences.
    pub fn from_parts(token_ids: Vec<u32>, offsets: Vec<u32>) -> Result<Self, JobError> {
        let tokens = token_ids.len();
        if tokens > MAX_JOB_TOKENS {
            return Err(JobError::TooManyTokens { tokens });
        }
        match offsets.first() {
            None => return Err(JobError::NoSequence),
            Some(0) => {}
            Some(_) => return Err(JobError::Offsets { index: 0 }),
        }
        if offsets.len() == 1 {
            return Err(JobError::NoSequence);
        }
        for (sequence, pair) in offsets.windows(2).enumerate() {
            if pair[0] == pair[1] {
                return Err(JobError::EmptySequence { sequence });
            }
            if pair[0] > pair[1] {
                return Err(JobError::Offsets { index: sequence + 1 });
            }
        }
        if offsets.last().copied() != u32::try_from(tokens).ok() {
            return Err(JobError::Offsets { index: offsets.len() - 1 });
        }
        Ok(Self { token_ids, offsets, answer: None })
    }

    /// A generation: its prompt, and the answer that the program is to reproduce, all of it.
    pub fn generation(prompt: &[u32], answer: &[u32], sampling: Sampling) -> Result<Self, JobError> {
        let Some((_, before_last)) = answer.split_last() else {
            return Err(JobError::NoAnswer);
        };
        if prompt.is_empty() {
            return Err(JobError::EmptySequence { sequence: 0 });
        }
        let tokens = prompt.len().saturating_add(before_last.len());
        if tokens > MAX_JOB_TOKENS {
            return Err(JobError::TooManyTokens { tokens });
        }
        sampling.check()?;
        let job = Self::from_parts([prompt, before_last].concat(), vec![0, tokens as u32])?;
        Ok(Self { answer: Some(Answer { prompt: prompt.len() as u32, sampling }), ..job })
    }

    /// The job as a generation, where the prompt is the beginning of its only sequence.
    pub(crate) fn with_answer(self, answer: Answer) -> Option<Self> {
        let fits = self.sequence_count() == 1 && (1..=self.token_count()).contains(&answer.prompt.into());
        fits.then_some(Self { answer: Some(answer), ..self })
    }

    /// The same job with other parameters of the draw; one that is to be encoded has none, and stays as it is.
    #[must_use]
    pub fn with_sampling(&self, sampling: Sampling) -> Self {
        let answer = self.answer.as_ref().map(|answer| Answer { prompt: answer.prompt, sampling });
        Self { answer, ..self.clone() }
    }

    /// What makes the job a generation; nothing where it is to be encoded.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// Number of tokens that the program draws: the rows of a tensor over the answer. 0 where there is no answer.
    pub fn answer_count(&self) -> u64 {
        self.answer.as_ref().map_or(0, |answer| self.token_count() - u64::from(answer.prompt) + 1)
    }

    /// The token row that row `row` of the answer is computed from: that of the token before it.
    pub fn token_of_answer(&self, row: u64) -> Option<u64> {
        let answer = self.answer.as_ref()?;
        (row < self.answer_count()).then(|| u64::from(answer.prompt) - 1 + row)
    }

    /// The ids of all tokens, sequences concatenated.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Where sequences begin, and at last the number of tokens.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// Number of tokens: the rows of a tensor over tokens.
    pub fn token_count(&self) -> u64 {
        self.token_ids.len() as u64
    }

    /// Number of sequences: the rows of a tensor over sequences.
    pub fn sequence_count(&self) -> u64 {
        self.offsets.len() as u64 - 1
    }

    /// The sequence with this index.
    pub fn sequence(&self, index: u64) -> Option<Sequence> {
        let index = usize::try_from(index).ok()?;
        let (start, end) = (*self.offsets.get(index)?, *self.offsets.get(index.checked_add(1)?)?);
        Some(Sequence { index, start: start.into(), len: u64::from(end - start) })
    }

    /// All sequences in order.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = Sequence> + '_ {
        self.offsets.windows(2).enumerate().map(|(index, pair)| Sequence {
            index,
            start: pair[0].into(),
            len: u64::from(pair[1] - pair[0]),
        })
    }

    /// The sequence that the token in row `row` belongs to.
    pub fn sequence_of_token(&self, row: u64) -> Option<Sequence> {
        let row = u32::try_from(row).ok()?;
        let after = self.offsets.partition_point(|&offset| offset <= row);
        self.sequence(after.checked_sub(1)? as u64)
    }
}
