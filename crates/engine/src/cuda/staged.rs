//! What operators need to know of a batch, in a device's memory.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};
use gainsay_cuda_launch::At;
use gainsay_cuda_launch::attention::{Cache, Heads, Plan, Segment};
use gainsay_program::JobField;

use super::answers::Answers;
use super::{Arena, Array, Device};
use crate::batch::Batch;
use crate::kernels::{KvCache, KvPlace, KvType, PAGE_TOKENS};

/// Words between the beginnings of columns: 256 bytes, as allocations are aligned.
const ALIGN: usize = 64;

/// Columns of a batch, copied to the device at once.
pub(crate) struct Staged {
    words: Array<u32>,
    ids: Tensor,
    positions_tensor: Tensor,
    type_ids: Tensor,
    rows: usize,
    sequences: usize,
    answers: usize,
    positions: usize,
    starts: usize,
    answer_rows: usize,
    /// See [`Answers`].
    changes: usize,
    change_positions: usize,
    penalized: usize,
    drawn: usize,
    /// Where each row's key and value go, counted in tokens of its arena.
    slots: usize,
    /// The tables of pages of all sequences.
    pages: usize,
    caches: Vec<StagedCache>,
    /// Where sequences begin, and the last one ends.
    ends: Vec<u32>,
    plans: Mutex<Vec<(PlanKey, Arc<StagedPlan>)>>,
}

/// Sequences whose keys and values lie in one arena.
pub(super) struct StagedCache {
    arena: Arena,
    memory: Array<u8>,
    segments: Vec<Segment>,
}

impl StagedCache {
    /// The keys and values of one attention.
    pub(super) fn cache(&self, place: KvPlace) -> Cache {
        Cache {
            arena: self.memory.at(),
            is_bf16: self.arena.kind() == KvType::Bf16,
            page: self.arena.page_elements() as u64,
            place: place.keys() as u64,
        }
    }

    /// Its sequences.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// Attentions of one shape over the same rows share a plan: these heads, over the rows of a cache or of the batch itself.
type PlanKey = (Heads, Option<usize>);

/// A plan, and its words on the device.
pub(super) struct StagedPlan {
    pub(super) plan: Plan,
    pub(super) words: Array<u32>,
}

/// Columns one after the other, each aligned.
#[derive(Default)]
struct Columns(Vec<u32>);

impl Columns {
    /// Adds a column and gives its place.
    fn add(&mut self, column: impl IntoIterator<Item = u32>) -> usize {
        let place = self.0.len();
        self.0.extend(column);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
        place
    }
}

impl Staged {
    /// Copies what a batch is. The caches have grown to hold it.
    pub(crate) fn new(device: &Device, batch: &Batch<'_>, caches: &[KvCache]) -> Result<Self> {
        let mut columns = Columns::default();
        let ends = batch.segments().iter().map(|segment| segment.rows.end as u32);
        let ends: Vec<u32> = std::iter::once(0).chain(ends).collect();
        let paged = Paged::new(batch, caches);
        let slots = columns.add(paged.slots);
        let pages = columns.add(paged.pages);
        let positions = columns.add(batch.positions().iter().copied());
        let starts = columns.add(ends.iter().copied());
        let answer_rows = columns.add(batch.answer_rows().into_iter().map(|row| row as u32));
        let answers = Answers::new(batch);
        let changes = columns.add(answers.changes.words().iter().copied());
        let change_positions = columns.add(answers.changes.positions().iter().copied());
        let penalized = columns.add(answers.penalized);
        let drawn = columns.add(answers.drawn);
        let tensor = |values: &[u32]| Tensor::from_slice(values, values.len(), device.tensors());
        Ok(Self {
            words: Array::upload(device, &columns.0)?,
            ids: tensor(batch.ids())?,
            positions_tensor: tensor(batch.positions())?,
            type_ids: Tensor::zeros(batch.ids().len(), candle_core::DType::U32, device.tensors())?,
            rows: batch.ids().len(),
            sequences: batch.segments().len(),
            answers: batch.size().answers,
            positions,
            starts,
            answer_rows,
            changes,
            change_positions,
            penalized,
            drawn,
            slots,
            pages,
            caches: paged.caches,
            ends,
            plans: Mutex::default(),
        })
    }

    /// A column of the jobs.
    pub(crate) fn column(&self, field: JobField) -> Tensor {
        match field {
            JobField::Ids => self.ids.clone(),
            JobField::Positions => self.positions_tensor.clone(),
            JobField::TypeIds => self.type_ids.clone(),
        }
    }

    /// Rows of the batch.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Its sequences.
    pub(super) fn sequences(&self) -> usize {
        self.sequences
    }

    /// Its rows of answers.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// Where each row is in its sequence.
    pub(super) fn positions(&self) -> At<u32> {
        self.words.at().skip(self.positions as u64)
    }

    /// Where each sequence begins, and the last one ends.
    pub(super) fn starts(&self) -> At<u32> {
        self.words.at().skip(self.starts as u64)
    }

    /// The rows that give the rows of answers.
    pub(super) fn answer_rows(&self) -> At<u32> {
        self.words.at().skip(self.answer_rows as u64)
    }

    /// What changes the logits of sequences: changes, and the positions that they refer to.
    pub(super) fn changes(&self) -> (At<u32>, At<u32>) {
        let at = self.words.at();
        (at.skip(self.changes as u64), at.skip(self.change_positions as u64))
    }

    /// How each row of an answer is penalized.
    pub(super) fn penalized(&self) -> At<u32> {
        self.words.at().skip(self.penalized as u64)
    }

    /// How each row of an answer is drawn.
    pub(super) fn drawn(&self) -> At<u32> {
        self.words.at().skip(self.drawn as u64)
    }

    /// Where each row's key and value go.
    pub(super) fn slots(&self) -> At<u32> {
        self.words.at().skip(self.slots as u64)
    }

    /// The tables of pages.
    pub(super) fn pages(&self) -> At<u32> {
        self.words.at().skip(self.pages as u64)
    }

    /// The arenas that the batch's sequences have pages in.
    pub(super) fn caches(&self) -> &[StagedCache] {
        &self.caches
    }

    /// The plan of attentions within sequences, or over a cache of the batch.
    pub(super) fn plan(
        &self,
        device: &Device,
        heads: Heads,
        cache: Option<usize>,
    ) -> Result<Arc<StagedPlan>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(key, _)| *key == (heads, cache)) {
            return Ok(Arc::clone(plan));
        }
        let room = device.room();
        let plan = match cache {
            None => Plan::full(heads, &self.ends, room),
            Some(cache) => Plan::causal(heads, self.caches[cache].segments(), room),
        };
        let words = Array::upload(device, plan.words())?;
        let staged = Arc::new(StagedPlan { plan, words });
        plans.push(((heads, cache), Arc::clone(&staged)));
        Ok(staged)
    }
}

/// The pages of a batch's sequences, arena by arena. Only jobs that a fault strikes have arenas of their own.
#[derive(Default)]
struct Paged {
    slots: Vec<u32>,
    pages: Vec<u32>,
    caches: Vec<StagedCache>,
}

impl Paged {
    fn new(batch: &Batch<'_>, caches: &[KvCache]) -> Self {
        let mut paged = Self::default();
        for segment in batch.segments() {
            let Some((arena, pages)) = caches.get(segment.cache).and_then(KvCache::on_device) else {
                continue;
            };
            let Some(memory) = arena.memory() else { continue };
            let of_row = |position: usize| {
                pages[position / PAGE_TOKENS] * PAGE_TOKENS as u32 + (position % PAGE_TOKENS) as u32
            };
            paged.slots.extend((segment.first..segment.first + segment.rows.len()).map(of_row));
            let described = Segment {
                row: segment.rows.start as u32,
                rows: segment.rows.len() as u32,
                first: segment.first as u32,
                pages: paged.pages.len() as u32,
            };
            paged.pages.extend_from_slice(pages);
            match paged.caches.iter_mut().find(|cache| cache.arena.is(arena)) {
                Some(cache) => cache.segments.push(described),
                None => {
                    let (arena, segments) = (arena.clone(), vec![described]);
                    paged.caches.push(StagedCache { arena, memory, segments });
                }
            }
        }
        paged
    }
}
