//! Jobs of a runner, and how far they have come.

use std::panic::{AssertUnwindSafe, catch_unwind};

use gainsay_program::{JobInput, Sampling};

use crate::Fault;
use crate::batch::{Generation, Known, known};
use crate::error::RunError;
use crate::kernels::answer::Counts;
use crate::kernels::{KvCache, PagePool};
use crate::record::JobRecord;

/// A job of a runner.
pub(super) struct Job<K> {
    pub(super) key: K,
    pub(super) task: Task,
    pub(super) fault: Option<Fault>,
    pub(super) record: JobRecord,
    /// Keys and values of the sequence at hand.
    pub(super) cache: Option<KvCache>,
    pub(super) pages: PagePool,
    pub(super) reserved: u64,
    /// Set where a step failed that held it and others: it runs alone until it has come as far as that step went, see
    /// [`Task::at`].
    pub(super) suspect: Option<(usize, usize)>,
}

/// What a job is, and how far it has come.
pub(super) enum Task {
    Encode {
        input: JobInput,
        /// The sequence at hand.
        sequence: usize,
        /// Tokens of it that are computed.
        done: usize,
    },
    Generate {
        /// Prompt and answer.
        ids: Vec<u32>,
        prompt: usize,
        sampling: Sampling,
        /// What penalties count of prompt and answer.
        counts: Counts,
        max_tokens: usize,
        /// Tokens that are computed.
        done: usize,
        stop: Box<dyn FnMut(u32) -> bool + Send>,
    },
}

/// Tokens of a job's sequence that a step computes.
pub(super) struct Scheduled {
    pub(super) job: usize,
    pub(super) sequence: usize,
    pub(super) tokens: std::ops::Range<usize>,
}

impl Task {
    /// What is known of a sequence, and the row of its first token in the job; nothing beyond the last.
    pub(super) fn known(&self, sequence: usize) -> Option<(Known<'_>, usize)> {
        match self {
            Self::Encode { input, .. } => {
                let sequence = input.sequence(sequence as u64)?;
                let start = sequence.start as usize;
                Some((known(input, start..start + sequence.len as usize), start))
            }
            Self::Generate { ids, prompt, sampling, counts, .. } => {
                let generation = Some(Generation { prompt: *prompt, sampling, counted: Some(counts) });
                Some((Known { ids, generation }, 0))
            }
        }
    }

    /// The sequence at hand, and how much of it is computed.
    pub(super) fn at(&self) -> (usize, usize) {
        match *self {
            Self::Encode { sequence, done, .. } => (sequence, done),
            Self::Generate { done, .. } => (0, done),
        }
    }

    /// Whether the answer has come as far as it is known: a row a step is all that there is to do.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self, Self::Generate { ids, prompt, done, .. } if ids.len() > *prompt && done + 1 == ids.len())
    }
}

/// How a job has come on.
pub(super) struct Advance {
    pub(super) token: Option<u32>,
    pub(super) done: bool,
}

impl<K> Job<K> {
    /// Forgets all that was computed, but for the tokens of its answer; a suspect until it has come to `until`.
    pub(super) fn begin_again(&mut self, record: JobRecord, until: (usize, usize)) {
        (self.record, self.cache, self.suspect) = (record, None, Some(until));
        match &mut self.task {
            Task::Encode { sequence, done, .. } => (*sequence, *done) = (0, 0),
            Task::Generate { done, .. } => *done = 0,
        }
    }

    /// Takes note that the tokens of a sequence up to `end` are computed.
    pub(super) fn advance(&mut self, at: usize, end: usize) -> Result<Advance, RunError> {
        let advance = self.task.advance(&self.record, at, end)?;
        self.suspect = self.suspect.filter(|until| self.task.at() < *until);
        Ok(advance)
    }
}

impl Task {
    /// As [`Job::advance`], where `record` holds what was computed.
    fn advance(&mut self, record: &JobRecord, at: usize, end: usize) -> Result<Advance, RunError> {
        match self {
            Task::Encode { input, sequence, done } => {
                let is_whole = input.sequence(at as u64).is_none_or(|it| it.len == end as u64);
                (*sequence, *done) = if is_whole { (at + 1, 0) } else { (at, end) };
                Ok(Advance { token: None, done: *sequence as u64 == input.sequence_count() })
            }
            Task::Generate { ids, prompt, sampling, counts, max_tokens, done, stop } => {
                *done = end;
                if end < ids.len() {
                    return Ok(Advance { token: None, done: false });
                }
                let words: &[[u8; 4]] = record.output().as_chunks().0;
                let token = words.last().map_or(0, |&word| u32::from_le_bytes(word));
                ids.push(token);
                counts.extend(sampling, *prompt, ids);
                let stops = catch_unwind(AssertUnwindSafe(|| stop(token))).map_err(|_| RunError::Stop)?;
                Ok(Advance { token: Some(token), done: stops || ids.len() - *prompt >= *max_tokens })
            }
        }
    }
}
