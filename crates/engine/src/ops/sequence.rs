//! Ops whose output rows depend on a whole sequence.

use std::ops::Range;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::carrier::{matrix, output, read_floats};
use crate::batch::Batch;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::kernels::{CausalRows, Heads, Kernels, KvCache, KvPlace, Qkv};

/// Attention within each sequence.
pub(super) struct Attention<'a> {
    pub(super) kernels: Kernels,
    pub(super) heads: Heads,
    pub(super) batch: &'a Batch<'a>,
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, shape) = matrix(q, q_layout)?;
        let (k, k_shape) = matrix(k, k_layout)?;
        let (v, v_shape) = matrix(v, v_layout)?;
        let sequences = self.batch.sequences();
        let rows = rows_of(&sequences);
        let (expected, expected_kv) = ((rows, self.heads.stride()), (rows, self.heads.kv_stride()));
        if shape != expected || [k_shape, v_shape] != [expected_kv; 2] {
            bail!(
                "attention over {shape:?}, {k_shape:?}, {v_shape:?}, where {expected:?}, {expected_kv:?} is due"
            )
        }
        output(shape, |out| self.kernels.attention(self.heads, Qkv { q, k, v }, &sequences, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        cuda::attention(self.heads, self.batch.staged()?, [(q, q_layout), (k, k_layout), (v, v_layout)])
    }
}

/// Attention of new rows to what their caches hold, these rows included.
pub(super) struct Causal<'a> {
    pub(super) kernels: Kernels,
    pub(super) heads: Heads,
    pub(super) place: KvPlace,
    pub(super) batch: &'a Batch<'a>,
    pub(super) caches: &'a [KvCache],
}

impl CustomOp1 for Causal<'_> {
    fn name(&self) -> &'static str {
        "causal_attention"
    }

    fn cpu_fwd(&self, q: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (q, shape) = matrix(q, layout)?;
        let sequences = self.batch.segments().iter().map(|segment| CausalRows {
            rows: segment.rows.clone(),
            first: segment.first,
            cache: &self.caches[segment.cache],
        });
        let sequences: Vec<_> = sequences.collect();
        let rows = self.batch.ids().len();
        if shape != (rows, self.heads.stride()) {
            bail!("attention of {shape:?}, where {:?} is due", (rows, self.heads.stride()))
        }
        output(shape, |out| self.kernels.causal(self.heads, self.place, q, &sequences, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, q: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::causal(self.heads, self.place, self.batch.staged()?, (q, layout))
    }
}

/// Appends the keys and values of a batch's rows to the caches of their sequences.
pub(super) fn append(
    batch: &Batch<'_>,
    caches: &mut [KvCache],
    place: KvPlace,
    heads: Heads,
    (k, v): (&Tensor, &Tensor),
) -> Result<()> {
    let stride = heads.kv_stride();
    if [k.dims2()?, v.dims2()?] != [(batch.ids().len(), stride); 2] {
        bail!("keys {:?} and values {:?} do not fit the batch", k.dims(), v.dims())
    }
    #[cfg(feature = "cuda")]
    if k.device().is_cuda() {
        return cuda::append(heads, place, batch.staged()?, [k, v]);
    }
    read_floats(k, |k| {
        read_floats(v, |v| {
            caches.par_iter_mut().enumerate().for_each(|(index, cache)| {
                if let Some(segment) = batch.segment_with(index) {
                    let elements = segment.rows.start * stride..segment.rows.end * stride;
                    cache.append(place, segment.first, &k[elements.clone()], &v[elements]);
                }
            });
        })
    })?
}

/// The mean of each sequence's rows.
pub(super) struct MeanPool<'a> {
    pub(super) kernels: Kernels,
    pub(super) batch: &'a Batch<'a>,
}

impl CustomOp1 for MeanPool<'_> {
    fn name(&self) -> &'static str {
        "mean_pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, (rows, width)) = matrix(x, layout)?;
        let sequences = self.batch.sequences();
        if rows != rows_of(&sequences) {
            bail!("{rows} rows do not fit sequences of {}", rows_of(&sequences))
        }
        let shape = (sequences.len(), width);
        output(shape, |out| self.kernels.mean_pool(x, width, &sequences, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::mean_pool(self.batch.staged()?, (x, layout))
    }
}

fn rows_of(sequences: &[Range<usize>]) -> usize {
    sequences.last().map_or(0, |last| last.end)
}
