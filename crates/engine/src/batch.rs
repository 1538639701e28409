//! Which rows are computed together.
//!
//! No value depends on its neighbours, so rows of any jobs may share a batch, and a job may be spread over several. Where
//! every op looks back only, a sequence itself may be cut anywhere, its rows in order; else it stays whole. A batch is
//! bounded in rows and in bytes: the memory of a run does not grow with its jobs.

use std::ops::Range;

use gainsay_program::{JobInput, RowSpace, Sampling};

use crate::fault::Fault;
use crate::kernels::answer::Counts;

/// Rows of a batch, but for a single sequence that is longer and cannot be cut.
pub(crate) const BATCH_ROWS: usize = 1024;

/// Bytes that the outputs of a layer take in a batch, where sequences can be cut: so many that rows are worth their
/// while, however wide the vocabulary.
pub(crate) const BATCH_BYTES: u64 = 512 << 20;

/// Rows that are computed together.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    ids: Vec<u32>,
    positions: Vec<u32>,
    answers: usize,
    segments: Vec<Segment<'a>>,
    parts: Vec<Part>,
    /// What operators on a device need to know of it, copied there once.
    #[cfg(feature = "cuda")]
    staged: std::sync::OnceLock<crate::cuda::Staged>,
}

/// Tokens of one sequence that follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Segment<'a> {
    /// Their rows in the batch.
    pub(crate) rows: Range<usize>,
    /// Index of the first of them in the sequence.
    pub(crate) first: usize,
    /// Index of the sequence's cache among those of the run.
    pub(crate) cache: usize,
    /// Rows of the answer that they give, in the batch.
    pub(crate) answers: Range<usize>,
    /// What the sequence is.
    pub(crate) known: Known<'a>,
}

/// A sequence as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// All token ids that are known.
    pub(crate) ids: &'a [u32],
    /// What follows the prompt, where the sequence is a generation.
    pub(crate) generation: Option<Generation<'a>>,
}

/// How an answer is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Generation<'a> {
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// The submitter's choices.
    pub(crate) sampling: &'a Sampling,
    /// How often tokens are in its beginning, where that is kept from step to step.
    pub(crate) counted: Option<&'a Counts>,
}

impl Known<'_> {
    /// The rows of the answer that these tokens give: the last token of the prompt gives the first.
    pub(crate) fn answers(&self, tokens: Range<usize>) -> Range<usize> {
        self.generation.map_or(0..0, |generation| {
            let before = generation.prompt - 1;
            tokens.start.saturating_sub(before)..tokens.end.saturating_sub(before)
        })
    }
}

impl<'a> Segment<'a> {
    /// The generation that a row of an answer belongs to, with the tokens before the one that the row gives.
    pub(crate) fn chosen_after(&self, answer: usize) -> Option<(Generation<'a>, &'a [u32])> {
        let generation = self.known.generation?;
        let first = self.known.answers(self.first..self.first + self.rows.len()).start;
        let before = generation.prompt + first + (answer - self.answers.start);
        Some((generation, &self.known.ids[..before]))
    }

    /// Whether no known token follows it.
    pub(crate) fn is_last(&self) -> bool {
        self.first + self.rows.len() == self.known.ids.len()
    }

    /// Rows of the batch that give the rows of the answer: the last of the segment.
    fn answer_rows(&self) -> Range<usize> {
        self.rows.end - self.answers.len()..self.rows.end
    }
}

/// What a batch holds of one job: rows that follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Index of the job in the run.
    pub(crate) job: usize,
    /// What is to go wrong.
    pub(crate) fault: Option<Fault>,
    /// See [`Piece::in_job`].
    in_job: Option<[usize; 2]>,
    tokens: PartRows,
    sequences: PartRows,
    answers: PartRows,
    segments: Range<usize>,
}

/// Rows of a part in one row space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartRows {
    /// Where they are in the batch's tensors.
    pub(crate) in_batch: Range<usize>,
    /// Where the first of them is in the job's tensors.
    pub(crate) first_in_job: usize,
}

impl Part {
    /// How many rows the job has altogether, where that is known from the start.
    pub(crate) fn rows_in_job(&self, space: RowSpace) -> Option<usize> {
        match space {
            RowSpace::Tokens => self.in_job.map(|[tokens, _]| tokens),
            RowSpace::Sequences => self.in_job.map(|[_, sequences]| sequences),
            RowSpace::Answer => None,
        }
    }

    /// Its rows in this space.
    pub(crate) fn rows(&self, space: RowSpace) -> &PartRows {
        match space {
            RowSpace::Tokens => &self.tokens,
            RowSpace::Sequences => &self.sequences,
            RowSpace::Answer => &self.answers,
        }
    }
}

/// Tokens of a sequence of a job that are to be computed.
#[derive(Debug, Clone)]
pub(crate) struct Piece<'a> {
    /// Index of the job in the run.
    pub(crate) job: usize,
    /// What is to go wrong in the job.
    pub(crate) fault: Option<Fault>,
    /// The sequence.
    pub(crate) known: Known<'a>,
    /// Its index in the job.
    pub(crate) sequence: usize,
    /// Row of its first token in the job.
    pub(crate) start: usize,
    /// Tokens and sequences of the whole job, but for a generation: its first run does not know how far it goes.
    pub(crate) in_job: Option<[usize; 2]>,
    /// The tokens, counted in the sequence.
    pub(crate) tokens: Range<usize>,
    /// Index of the sequence's cache among those of the run; grows from segment to segment.
    pub(crate) cache: usize,
}

/// Rows of a batch in each space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BatchSize {
    /// Tokens.
    pub(crate) tokens: usize,
    /// Sequences.
    pub(crate) sequences: usize,
    /// Rows of answers.
    pub(crate) answers: usize,
}

impl BatchSize {
    /// The size with more tokens of one more sequence.
    pub(crate) fn with(self, known: &Known<'_>, tokens: Range<usize>) -> Self {
        Self {
            tokens: self.tokens + tokens.len(),
            sequences: self.sequences + 1,
            answers: self.answers + known.answers(tokens).len(),
        }
    }
}

impl<'a> Batch<'a> {
    /// Adds tokens. Those of a job follow each other.
    pub(crate) fn push(&mut self, piece: Piece<'a>) {
        let Piece { job, fault, known, sequence, start, in_job, tokens, cache } = piece;
        debug_assert!(self.segments.last().is_none_or(|last| last.cache < cache), "caches ascend");
        let first_answer = known.answers(tokens.clone());
        let rows = self.ids.len()..self.ids.len() + tokens.len();
        let answers = self.answers..self.answers + first_answer.len();
        if self.parts.last().is_none_or(|part| part.job != job) {
            let part = |at: usize, first_in_job| PartRows { in_batch: at..at, first_in_job };
            self.parts.push(Part {
                job,
                fault,
                in_job,
                tokens: part(rows.start, start + tokens.start),
                sequences: part(self.segments.len(), sequence),
                answers: part(answers.start, first_answer.start),
                segments: self.segments.len()..self.segments.len(),
            });
        }
        self.ids.extend_from_slice(&known.ids[tokens.clone()]);
        self.positions.extend(tokens.start as u32..tokens.end as u32);
        self.answers = answers.end;
        let part = self.parts.last_mut().expect("pushed above");
        part.tokens.in_batch.end = rows.end;
        part.sequences.in_batch.end = self.segments.len() + 1;
        part.answers.in_batch.end = answers.end;
        part.segments.end = self.segments.len() + 1;
        self.segments.push(Segment { rows, first: tokens.start, cache, answers, known });
    }

    /// Number of rows in a space.
    pub(crate) fn rows(&self, space: RowSpace) -> usize {
        match space {
            RowSpace::Tokens => self.ids.len(),
            RowSpace::Sequences => self.segments.len(),
            RowSpace::Answer => self.answers,
        }
    }

    /// Number of rows in every space.
    pub(crate) fn size(&self) -> BatchSize {
        BatchSize { tokens: self.ids.len(), sequences: self.segments.len(), answers: self.answers }
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Token ids.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Index of each token in its sequence.
    pub(crate) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Its segments, of sequences in ascending order of their caches.
    pub(crate) fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// The segments of a part.
    pub(crate) fn segments_of(&self, part: &Part) -> &[Segment<'a>] {
        &self.segments[part.segments.clone()]
    }

    /// The segment of a sequence with this cache.
    pub(crate) fn segment_with(&self, cache: usize) -> Option<&Segment<'a>> {
        let index = self.segments.binary_search_by_key(&cache, |segment| segment.cache).ok()?;
        Some(&self.segments[index])
    }

    /// Rows that give the rows of answers, in order.
    pub(crate) fn answer_rows(&self) -> Vec<usize> {
        self.segments.iter().flat_map(Segment::answer_rows).collect()
    }

    /// Rows of each sequence.
    pub(crate) fn sequences(&self) -> Vec<Range<usize>> {
        self.segments.iter().map(|segment| segment.rows.clone()).collect()
    }

    /// What it holds of each job, in order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

#[cfg(feature = "cuda")]
impl<'a> Batch<'a> {
    /// The same batch, by a sheet that lies elsewhere.
    pub(crate) fn staged_as(&self, staged: crate::cuda::Staged) -> Self {
        Self {
            ids: self.ids.clone(),
            positions: self.positions.clone(),
            answers: self.answers,
            segments: self.segments.clone(),
            parts: self.parts.clone(),
            staged: staged.into(),
        }
    }

    /// Copies to a device what operators there need to know. The caches have grown to hold the batch.
    ///
    /// # Errors
    /// The device refuses.
    pub(crate) fn stage(
        &self,
        device: &crate::cuda::Device,
        caches: &[crate::kernels::KvCache],
    ) -> candle_core::Result<()> {
        let staged = crate::cuda::Staged::new(device, self, caches)?;
        self.staged.set(staged).map_err(|_| candle_core::Error::Msg("a batch runs once".to_owned()))
    }

    /// What was copied.
    ///
    /// # Errors
    /// Nothing was.
    pub(crate) fn staged(&self) -> candle_core::Result<&crate::cuda::Staged> {
        let missing = || candle_core::Error::Msg("a batch is staged before it runs on a device".to_owned());
        self.staged.get().ok_or_else(missing)
    }
}

/// Spreads all rows of the jobs over batches, in order. `fits` says what may be together; what does not fit and cannot be
/// cut is alone. With `cut` a sequence may be cut.
pub(crate) fn divide<'a>(
    jobs: &'a [JobInput],
    fault: Option<Fault>,
    cut: bool,
    fits: impl Fn(BatchSize) -> bool,
) -> Vec<Batch<'a>> {
    let mut batches: Vec<Batch<'a>> = vec![Batch::default()];
    let mut cache = 0;
    for (job, input) in jobs.iter().enumerate() {
        for sequence in input.sequences() {
            let (start, len) = (sequence.start as usize, sequence.len as usize);
            let known = known(input, start..start + len);
            let in_job = in_job(input);
            let mut done = 0;
            while done < len {
                let last = batches.last_mut().expect("there is one from the start");
                let Some(end) = front(last.size(), &known, done..len, cut, &fits) else {
                    batches.push(Batch::default());
                    continue;
                };
                let tokens = done..end;
                last.push(Piece {
                    job,
                    fault,
                    known,
                    sequence: sequence.index,
                    start,
                    in_job,
                    tokens,
                    cache,
                });
                done = end;
                if done < len {
                    batches.push(Batch::default());
                }
            }
            cache += 1;
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

/// The sequence of a job that holds these tokens.
pub(crate) fn known(input: &JobInput, tokens: Range<usize>) -> Known<'_> {
    let generation = (input.answer()).map(|answer| Generation {
        prompt: answer.prompt as usize,
        sampling: &answer.sampling,
        counted: None,
    });
    Known { ids: &input.token_ids()[tokens], generation }
}

/// See [`Piece::in_job`].
pub(crate) fn in_job(input: &JobInput) -> Option<[usize; 2]> {
    let rows = [input.token_count() as usize, input.sequence_count() as usize];
    input.answer().is_none().then_some(rows)
}

/// How far `tokens` of a sequence go into a batch of this size: some of the first of them if they may be cut, else all.
/// `None` if they have to wait for the next batch.
pub(crate) fn front(
    size: BatchSize,
    known: &Known<'_>,
    tokens: Range<usize>,
    cut: bool,
    fits: impl Fn(BatchSize) -> bool,
) -> Option<usize> {
    let mut len = tokens.len();
    loop {
        let end = tokens.start + len;
        if fits(size.with(known, tokens.start..end)) {
            return Some(end);
        }
        if !cut || len <= 1 {
            return (size.tokens == 0).then_some(end);
        }
        len /= 2;
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
        let prompt: Vec<u32> = (0..5).collect();
        let generation = JobInput::generation(&prompt, &[7, 8, 9], Sampling::default()).unwrap();
        let jobs = [job(&[3, 4]), job(&[9]), generation, job(&[1, 1, 1, 6])];
        for (limit, cut) in [1, 4, 8, 100].into_iter().flat_map(|limit| [(limit, false), (limit, true)]) {
            let what = format!("limit {limit}, cut: {cut}");
            let mut next = vec![[0; 2]; jobs.len()];
            for batch in divide(&jobs, None, cut, |size| size.tokens <= limit) {
                assert!(batch.size().tokens <= limit || !cut && batch.size().sequences == 1, "{what}");
                for part in batch.parts() {
                    let job = &jobs[part.job];
                    for (space, next) in
                        [RowSpace::Tokens, RowSpace::Answer].into_iter().zip(&mut next[part.job])
                    {
                        let rows = part.rows(space);
                        assert!(rows.in_batch.is_empty() || rows.first_in_job == *next, "{what}, {space:?}");
                        *next += rows.in_batch.len();
                    }
                    let rows = part.rows(RowSpace::Tokens);
                    let ids = &job.token_ids()[rows.first_in_job..][..rows.in_batch.len()];
                    assert_eq!(&batch.ids()[rows.in_batch.clone()], ids, "{what}");
                }
                for segment in batch.segments() {
                    let positions = &batch.positions()[segment.rows.clone()];
                    assert!((segment.first as u32..).zip(positions).all(|(index, &found)| index == found));
                    for (answer, row) in segment.answers.clone().zip(segment.answer_rows()) {
                        let (_, before) = segment.chosen_after(answer).unwrap();
                        assert_eq!(before.len(), positions[row - segment.rows.start] as usize + 1, "{what}");
                    }
                }
            }
            for (job, next) in jobs.iter().zip(next) {
                assert_eq!(next.map(|rows| rows as u64), [job.token_count(), job.answer_count()], "{what}");
            }
        }
    }

    #[test]
    fn no_jobs_make_no_batch() {
        assert!(divide(&[], None, false, |_| true).is_empty());
    }
}
