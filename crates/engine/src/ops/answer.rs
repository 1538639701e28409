//! Ops over the rows of answers.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, bail};
use rayon::prelude::*;

use super::carrier::{matrix, output};
use crate::batch::Batch;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::kernels::answer::{Before, sample};

/// The rows of a tensor over tokens that give the rows of answers.
pub(super) struct SelectRows<'a> {
    pub(super) batch: &'a Batch<'a>,
}

impl CustomOp1 for SelectRows<'_> {
    fn name(&self) -> &'static str {
        "select_rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, (rows, width)) = matrix(x, layout)?;
        if rows != self.batch.ids().len() {
            bail!("{rows} rows do not fit a batch of {}", self.batch.ids().len())
        }
        let selected = self.batch.answer_rows();
        output((selected.len(), width), |out| {
            for (out, row) in out.chunks_exact_mut(width).zip(selected) {
                out.copy_from_slice(&x[row * width..][..width]);
            }
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::select_rows(self.batch.staged()?, (x, layout))
    }
}

/// Logits after penalties and biases.
pub(super) struct Penalize<'a> {
    pub(super) batch: &'a Batch<'a>,
}

/// Rows of one segment that a task takes: it counts the tokens before the first of them, unless the sequence brings the
/// count, then goes on from row to row.
const ROWS_AT_ONCE: usize = 16;

impl CustomOp1 for Penalize<'_> {
    fn name(&self) -> &'static str {
        "penalize"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (logits, (rows, width)) = answers(self.batch, logits, layout)?;
        output((rows, width), |out| {
            let mut tasks = Vec::new();
            let mut rest = out;
            for segment in self.batch.segments() {
                for first in segment.answers.clone().step_by(ROWS_AT_ONCE) {
                    let rows = first..(first + ROWS_AT_ONCE).min(segment.answers.end);
                    let (part, after) = rest.split_at_mut(rows.len() * width);
                    rest = after;
                    tasks.push((segment, rows, part));
                }
            }
            tasks.into_par_iter().for_each(|(segment, rows, out)| {
                let mut before: Option<Before<'_>> = None;
                for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                    out.copy_from_slice(&logits[row * width..][..width]);
                    if let Some((generation, tokens)) = segment.chosen_after(row) {
                        let before = before.get_or_insert_with(|| {
                            Before::new(generation.sampling, generation.counted, tokens.len())
                        });
                        before.extend(generation.prompt, tokens);
                        before.penalize(out);
                    }
                }
            });
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, logits: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::penalize(self.batch.staged()?, (logits, layout))
    }
}

/// The tokens drawn from logits.
pub(super) struct Sample<'a> {
    pub(super) batch: &'a Batch<'a>,
}

impl CustomOp1 for Sample<'_> {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (logits, (rows, width)) = answers(self.batch, logits, layout)?;
        let draws = self.batch.segments().iter().flat_map(|segment| {
            segment.answers.clone().filter_map(|row| {
                let (generation, before) = segment.chosen_after(row)?;
                Some((generation.sampling.candidates(), generation.sampling.draw(before.len() as u32)))
            })
        });
        let draws: Vec<_> = draws.collect();
        if draws.len() != rows {
            bail!("{} draws for {rows} rows of logits", draws.len())
        }
        let tokens = draws.par_iter().zip(logits.par_chunks(width));
        let tokens: Vec<u32> =
            tokens.map(|((sampling, draw), logits)| sample(logits, sampling, draw)).collect();
        Ok((CpuStorage::U32(tokens), Shape::from((rows, 1))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, logits: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::sample(self.batch.staged()?, (logits, layout))
    }
}

/// Logits of a batch's answers, with their rows and width.
fn answers<'a>(
    batch: &Batch<'_>,
    logits: &'a CpuStorage,
    layout: &Layout,
) -> Result<(&'a [f32], (usize, usize))> {
    let (logits, (rows, width)) = matrix(logits, layout)?;
    let expected = batch.size().answers;
    if rows != expected {
        bail!("{rows} rows of logits, where {expected} are due")
    }
    Ok((logits, (rows, width)))
}
