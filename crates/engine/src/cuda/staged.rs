//! What operators need to know of a batch, in a device's memory.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::op::BackpropOp;
use candle_core::{DType, Result, Storage, Tensor};
use gainsay_cuda_launch::At;
use gainsay_cuda_launch::attention::{Cache, Heads, Plan, Segment};
use gainsay_program::JobField;

use super::answers::Answers;
use super::array::output;
use super::{Arena, Array, Device};
use crate::batch::Batch;
use crate::kernels::{KvCache, KvPlace, KvType, PAGE_TOKENS};

/// Words between the beginnings of columns: 256 bytes, as allocations are aligned.
const ALIGN: usize = 64;

/// What operators need to know of a batch, as words: columns one after the other.
pub(super) struct Sheet {
    words: Vec<u32>,
    places: Places,
    caches: Vec<StagedCache>,
    /// Where sequences begin, and the last one ends.
    ends: Vec<u32>,
}

/// How much room columns have whose length is not that of the batch, so that sheets of many batches have one layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SheetRoom {
    /// Pages of each sequence.
    pub(super) pages: usize,
    /// Words of changes.
    pub(super) changes: usize,
    /// Positions that changes refer to.
    pub(super) positions: usize,
}

/// Where columns begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    rows: usize,
    sequences: usize,
    answers: usize,
    ids: usize,
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
}

impl SheetRoom {
    /// Room for this batch and for others like it.
    pub(super) fn like(batch: &Batch<'_>, caches: &[KvCache], answers: &Answers) -> Self {
        let pages = batch.segments().iter().filter_map(|segment| caches.get(segment.cache)?.on_device());
        // Twice the room is half as many layouts.
        let roomy = |len: usize| if len == 0 { 0 } else { len.next_power_of_two().max(ALIGN) };
        Self {
            pages: pages.map(|(_, pages)| pages.len()).max().unwrap_or(0).next_power_of_two(),
            changes: roomy(answers.changes.words().len()),
            positions: roomy(answers.changes.positions().len()),
        }
    }
}

impl Sheet {
    /// What is to be known of a batch. The caches have grown to hold it.
    pub(super) fn new(batch: &Batch<'_>, caches: &[KvCache], answers: Answers, room: SheetRoom) -> Self {
        let mut columns = Columns::default();
        let ends = batch.segments().iter().map(|segment| segment.rows.end as u32);
        let ends: Vec<u32> = std::iter::once(0).chain(ends).collect();
        let paged = Paged::new(batch, caches, room.pages);
        let places = Places {
            rows: batch.ids().len(),
            sequences: batch.segments().len(),
            answers: batch.size().answers,
            ids: columns.add(batch.ids().iter().copied()),
            positions: columns.add(batch.positions().iter().copied()),
            starts: columns.add(ends.iter().copied()),
            answer_rows: columns.add(batch.answer_rows().into_iter().map(|row| row as u32)),
            penalized: columns.add(answers.penalized),
            drawn: columns.add(answers.drawn),
            slots: columns.add(paged.slots),
            pages: columns.add(paged.pages),
            changes: columns.add_to(answers.changes.words().iter().copied(), room.changes),
            change_positions: columns.add_to(answers.changes.positions().iter().copied(), room.positions),
        };
        Self { words: columns.0, places, caches: paged.caches, ends }
    }

    /// Adds a column and gives its place.
    pub(super) fn add(&mut self, column: impl IntoIterator<Item = u32>) -> usize {
        let mut columns = Columns(std::mem::take(&mut self.words));
        let place = columns.add(column);
        self.words = columns.0;
        place
    }

    /// The words.
    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    /// The words, to be changed.
    pub(super) fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }

    /// The arenas that the batch's sequences have pages in.
    pub(super) fn caches(&self) -> &[StagedCache] {
        &self.caches
    }

    /// The sheet on a device, where `words` is a copy of its words, or will be before anything runs.
    pub(super) fn on(self, device: &Device, words: Array<u32>) -> Staged {
        let Self { places, caches, ends, .. } = self;
        Staged { device: device.clone(), words, places, caches, ends, plans: Mutex::default() }
    }
}

/// A batch's sheet in a device's memory.
pub(crate) struct Staged {
    device: Device,
    words: Array<u32>,
    places: Places,
    caches: Vec<StagedCache>,
    ends: Vec<u32>,
    plans: Mutex<Vec<(PlanKey, Arc<StagedPlan>)>>,
}

/// Sequences whose keys and values lie in one arena.
pub(super) struct StagedCache {
    arena: Arena,
    base: At<u8>,
    segments: Vec<Segment>,
}

impl StagedCache {
    /// The keys and values of one attention.
    pub(super) fn cache(&self, place: KvPlace) -> Cache {
        Cache {
            arena: self.base,
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
    pub(super) words: At<u32>,
    /// Where they are, if it is not the sheet.
    _words: Option<Array<u32>>,
}

/// Columns one after the other, each aligned.
#[derive(Default)]
struct Columns(Vec<u32>);

impl Columns {
    /// Adds a column and gives its place.
    fn add(&mut self, column: impl IntoIterator<Item = u32>) -> usize {
        self.add_to(column, 0)
    }

    /// Adds a column that has room for so many words, and gives its place.
    fn add_to(&mut self, column: impl IntoIterator<Item = u32>, room: usize) -> usize {
        let place = self.0.len();
        self.0.extend(column);
        self.0.resize(self.0.len().max(place + room).next_multiple_of(ALIGN), 0);
        place
    }
}

impl Staged {
    /// Copies what a batch is. The caches have grown to hold it.
    pub(crate) fn new(device: &Device, batch: &Batch<'_>, caches: &[KvCache]) -> Result<Self> {
        let sheet = Sheet::new(batch, caches, Answers::new(batch), SheetRoom::default());
        let words = Array::upload(device, sheet.words())?;
        Ok(sheet.on(device, words))
    }

    /// A column of the jobs.
    pub(crate) fn column(&self, field: JobField) -> Result<Tensor> {
        let Places { rows, ids, positions, .. } = self.places;
        let column = match field {
            JobField::Ids => ids,
            JobField::Positions => positions,
            JobField::TypeIds => return Tensor::zeros(rows, DType::U32, self.device.tensors()),
        };
        let (storage, _) = output::<u32>(&self.device, (rows, 1), |out| {
            // SAFETY: the column has as many words, and the tensor is nobody else's.
            unsafe { self.device.copy(self.words.at().skip(column as u64), out, rows) }
        })?;
        Ok(Tensor::from_storage(Storage::Cuda(storage), rows, BackpropOp::none(), false))
    }

    /// Rows of the batch.
    pub(super) fn rows(&self) -> usize {
        self.places.rows
    }

    /// Its sequences.
    pub(super) fn sequences(&self) -> usize {
        self.places.sequences
    }

    /// Its rows of answers.
    pub(super) fn answers(&self) -> usize {
        self.places.answers
    }

    /// Where each row is in its sequence.
    pub(super) fn positions(&self) -> At<u32> {
        self.words.at().skip(self.places.positions as u64)
    }

    /// Where each sequence begins, and the last one ends.
    pub(super) fn starts(&self) -> At<u32> {
        self.words.at().skip(self.places.starts as u64)
    }

    /// The rows that give the rows of answers.
    pub(super) fn answer_rows(&self) -> At<u32> {
        self.words.at().skip(self.places.answer_rows as u64)
    }

    /// What changes the logits of sequences: changes, and the positions that they refer to.
    pub(super) fn changes(&self) -> (At<u32>, At<u32>) {
        let at = self.words.at();
        (at.skip(self.places.changes as u64), at.skip(self.places.change_positions as u64))
    }

    /// How each row of an answer is penalized.
    pub(super) fn penalized(&self) -> At<u32> {
        self.words.at().skip(self.places.penalized as u64)
    }

    /// How each row of an answer is drawn.
    pub(super) fn drawn(&self) -> At<u32> {
        self.words.at().skip(self.places.drawn as u64)
    }

    /// Where each row's key and value go.
    pub(super) fn slots(&self) -> At<u32> {
        self.words.at().skip(self.places.slots as u64)
    }

    /// The tables of pages.
    pub(super) fn pages(&self) -> At<u32> {
        self.words.at().skip(self.places.pages as u64)
    }

    /// The arenas that the batch's sequences have pages in.
    pub(super) fn caches(&self) -> &[StagedCache] {
        &self.caches
    }

    /// Takes note of the plan of attentions over the batch's first cache, whose words are in the sheet.
    pub(super) fn set_plan(&self, heads: Heads, plan: Plan, place: usize) {
        let words = self.words.at().skip(place as u64);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.push(((heads, Some(0)), Arc::new(StagedPlan { plan, words, _words: None })));
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
        let staged = Arc::new(StagedPlan { plan, words: words.at(), _words: Some(words) });
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
    /// Tables have room for `room` pages of each sequence, or for more where there are more.
    fn new(batch: &Batch<'_>, caches: &[KvCache], room: usize) -> Self {
        let mut paged = Self::default();
        for segment in batch.segments() {
            let Some((arena, pages)) = caches.get(segment.cache).and_then(KvCache::on_device) else {
                continue;
            };
            let Some(base) = arena.base() else { continue };
            let of_row = |position: usize| {
                let slot =
                    pages[position / PAGE_TOKENS] * PAGE_TOKENS as i32 + (position % PAGE_TOKENS) as i32;
                slot.cast_unsigned()
            };
            paged.slots.extend((segment.first..segment.first + segment.rows.len()).map(of_row));
            let described = Segment {
                row: segment.rows.start as u32,
                rows: segment.rows.len() as u32,
                first: segment.first as u32,
                pages: paged.pages.len() as u32,
            };
            paged.pages.extend(pages.iter().map(|page| page.cast_unsigned()));
            paged.pages.resize(described.pages as usize + pages.len().max(room), 0);
            match paged.caches.iter_mut().find(|cache| cache.arena.is(arena)) {
                Some(cache) => cache.segments.push(described),
                None => {
                    let (arena, segments) = (arena.clone(), vec![described]);
                    paged.caches.push(StagedCache { arena, base, segments });
                }
            }
        }
        paged
    }
}
