//! Which sequences are computed together.
//!
//! No value depends on its neighbours, so sequences of any jobs may share a batch, and a job may be spread over
//! several. A batch is bounded in rows and in bytes: the memory of a run does not grow with its jobs.

use std::ops::Range;

use gainsay_program::{JobInput, RowSpace};

/// Rows of a batch, but for a single sequence that is longer.
pub(crate) const BATCH_ROWS: usize = 1024;

/// Sequences of one or more jobs, concatenated.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    ids: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<Range<usize>>,
    parts: Vec<Part>,
}

/// What a batch holds of one job: sequences that follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Index of the job in the run.
    pub(crate) job: usize,
    tokens: PartRows,
    sequences: PartRows,
}

/// Rows of a part in one row space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartRows {
    /// Where they are in the batch's tensors.
    pub(crate) in_batch: Range<usize>,
    /// Where the first of them is in the job's tensors.
    pub(crate) first_in_job: usize,
    /// How many the job has altogether.
    pub(crate) in_job: usize,
}

impl Part {
    /// Its rows in this space.
    pub(crate) fn rows(&self, space: RowSpace) -> &PartRows {
        match space {
            RowSpace::Tokens => &self.tokens,
            RowSpace::Sequences => &self.sequences,
            RowSpace::Answer => unreachable!("programs with answers are refused when they are loaded"),
        }
    }
}

impl Batch {
    /// Spreads the sequences of all jobs over batches, in order. `fits` says whether so many tokens in so many
    /// sequences may be together; a sequence that does not fit is alone.
    pub(crate) fn divide(jobs: &[JobInput], fits: impl Fn(usize, usize) -> bool) -> Vec<Self> {
        let mut batches = vec![Self::default()];
        for (job, input) in jobs.iter().enumerate() {
            for sequence in input.sequences() {
                let (start, len) = (sequence.start as usize, sequence.len as usize);
                if batches.last().is_none_or(|last| {
                    !last.ids.is_empty() && !fits(last.ids.len() + len, last.sequences.len() + 1)
                }) {
                    batches.push(Self::default());
                }
                let last = batches.last_mut().expect("there is one from the start");
                last.push(job, input, sequence.index, start..start + len);
            }
        }
        batches.retain(|batch| !batch.ids.is_empty());
        batches
    }

    fn push(&mut self, job: usize, input: &JobInput, sequence: usize, tokens: Range<usize>) {
        let start = self.ids.len();
        self.ids.extend_from_slice(&input.token_ids()[tokens.clone()]);
        self.positions.extend(0..tokens.len() as u32);
        if self.parts.last().is_none_or(|part| part.job != job) {
            let rows = |at: usize, first_in_job, in_job: u64| PartRows {
                in_batch: at..at,
                first_in_job,
                in_job: in_job as usize,
            };
            self.parts.push(Part {
                job,
                tokens: rows(start, tokens.start, input.token_count()),
                sequences: rows(self.sequences.len(), sequence, input.sequence_count()),
            });
        }
        self.sequences.push(start..self.ids.len());
        let part = self.parts.last_mut().expect("pushed above");
        part.tokens.in_batch.end = self.ids.len();
        part.sequences.in_batch.end = self.sequences.len();
    }

    /// Number of tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Token ids.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Index of each token in its sequence.
    pub(crate) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Rows of each sequence.
    pub(crate) fn sequences(&self) -> &[Range<usize>] {
        &self.sequences
    }

    /// What it holds of each job, in order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(lengths: &[usize]) -> JobInput {
        JobInput::new(lengths.iter().map(|&len| (0..len as u32).collect::<Vec<_>>())).unwrap()
    }

    #[test]
    fn every_row_of_every_job_is_in_exactly_one_place() {
        let jobs = [job(&[3, 4]), job(&[9]), job(&[1, 1, 1, 6])];
        for limit in [1, 4, 8, 100] {
            let mut next = vec![[0; 2]; jobs.len()];
            for batch in Batch::divide(&jobs, |tokens, _| tokens <= limit) {
                assert!(batch.tokens() <= limit || batch.sequences().len() == 1, "limit {limit}");
                for part in batch.parts() {
                    let job = &jobs[part.job];
                    for (space, next) in
                        [RowSpace::Tokens, RowSpace::Sequences].into_iter().zip(&mut next[part.job])
                    {
                        assert_eq!(part.rows(space).first_in_job, *next, "limit {limit}, {space:?}");
                        *next += part.rows(space).in_batch.len();
                    }
                    let rows = part.rows(RowSpace::Tokens);
                    let ids = &job.token_ids()[rows.first_in_job..][..rows.in_batch.len()];
                    assert_eq!(&batch.ids()[rows.in_batch.clone()], ids, "limit {limit}");
                }
                let lengths: usize = batch.sequences().iter().map(Range::len).sum();
                assert_eq!(lengths, batch.tokens());
                assert!(batch.sequences().iter().all(|rows| batch.positions()[rows.start] == 0));
            }
            for (job, next) in jobs.iter().zip(next) {
                assert_eq!(next.map(|rows| rows as u64), [job.token_count(), job.sequence_count()]);
            }
        }
    }

    #[test]
    fn no_jobs_make_no_batch() {
        assert!(Batch::divide(&[], |_, _| true).is_empty());
    }
}
