//! What penalties and draws need to know of the rows of answers in a batch.

use gainsay_cuda_launch::sampling::{Changes, DrawnRow, PenalizedRow};

use crate::batch::{Batch, Generation};
use crate::kernels::answer::is_neutral;

/// Words that the kernels read.
#[derive(Default)]
pub(super) struct Answers {
    /// Changes of all sequences.
    pub(super) changes: Changes,
    /// [`PenalizedRow::words`] of every row.
    pub(super) penalized: Vec<u32>,
    /// [`DrawnRow::words`] of every row.
    pub(super) drawn: Vec<u32>,
}

impl Answers {
    /// What is known of a batch's rows of answers.
    pub(super) fn new(batch: &Batch<'_>) -> Self {
        let mut answers = Self::default();
        for segment in batch.segments().iter().filter(|segment| !segment.answers.is_empty()) {
            let Some(generation) = segment.known.generation else { continue };
            let Generation { prompt, sampling, .. } = generation;
            // What nothing depends on does not travel.
            let (given, chosen) = match segment.known.ids.split_at_checked(prompt) {
                Some(parts) if !is_neutral(sampling) => parts,
                _ => (&[][..], &[][..]),
            };
            let changes = answers.changes.add(given, chosen, &sampling.logit_bias);
            for row in segment.answers.clone() {
                let Some((_, before)) = segment.chosen_after(row) else { continue };
                let penalties = sampling.penalties();
                let penalized = PenalizedRow {
                    changes: changes.clone(),
                    before: (before.len() - prompt) as u32,
                    repetition: penalties.repetition,
                    presence: penalties.presence,
                    frequency: penalties.frequency,
                };
                answers.penalized.extend(penalized.words());
                let (candidates, draw) = (sampling.candidates(), sampling.draw(before.len() as u32));
                let drawn = DrawnRow {
                    temperature: candidates.temperature,
                    top_k: candidates.top_k,
                    top_p: candidates.top_p,
                    min_p: candidates.min_p,
                    seed: draw.seed,
                    choice: draw.choice,
                    position: draw.position,
                };
                answers.drawn.extend(drawn.words());
            }
        }
        answers
    }
}
