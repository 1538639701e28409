//! Attention, of whole sequences and over a paged cache of keys and values: `attention.cu`.
//!
//! A [`Plan`] says once for a batch which tiles of queries there are, and is the same for all attentions of one shape; its
//! [`Plan::words`] go to the device once. Between the kernels of an attention the scores are in scratch memory: the plan
//! cuts the tiles into portions whose scores fit, which follow each other through the same memory.

use crate::{At, Launch, Shape, launch};

/// Tokens of a page of a cache: the keys of one block of a dot product.
pub const PAGE_TOKENS: u32 = 128;
/// Queries of a tile where there are many, and where there are few.
const MANY: u32 = 64;
const FEW: u32 = 8;
/// Queries of a segment and a head of keys that still are few.
const STILL_FEW: u32 = 16;
/// Blocks of threads that occupy a multiprocessor, with tiles of many and of few queries.
const OCCUPY_MANY: u64 = 2;
const OCCUPY_FEW: u64 = 8;
/// Exponentials that a block holds at most while it adds them up.
const MOST_HELD: u32 = 8192;

/// Heads of an attention and the factor on its scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Heads of queries.
    pub count: u32,
    /// Heads of keys and values; divides `count`. Heads that follow each other share one.
    pub kv_count: u32,
    /// Columns of a head.
    pub width: u32,
    /// Factor on every score.
    pub scale: f32,
}

/// What a plan may count on. It decides how work is cut, and no bit of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of scratch memory, which a plan exceeds only where one tile needs more.
    pub scratch_bytes: u64,
    /// Multiprocessors of the GPU. Where tiles do not keep them all busy, blocks of keys are shared out too.
    pub multiprocessors: u32,
}

impl Default for Room {
    /// What an H200 has, and memory enough that all of it has work with sequences of 8,192 tokens.
    fn default() -> Self {
        Self { scratch_bytes: 256 << 20, multiprocessors: 132 }
    }
}

impl Heads {
    /// Heads that share one of keys.
    const fn shared(&self) -> u32 {
        self.count / self.kv_count
    }
}

/// New rows of one sequence, in a causal attention over a cache that holds them and all before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The first of them in the batch.
    pub row: u32,
    /// How many there are.
    pub rows: u32,
    /// Position of the first in the sequence.
    pub first: u32,
    /// Where the sequence's pages begin in the table of pages: entry `pages + i` is the number of page `i`, a signed one.
    pub pages: u32,
}

/// Where the keys and values of one attention are in a cache: pages of [`PAGE_TOKENS`] tokens, of which page `n` lies `n` pages
/// behind the one numbered 0, or before it where `n` is negative. In a page and from `place` on, keys are `[kv_count, PAGE_TOKENS, width]`, and values follow likewise.
#[derive(Debug, Clone, Copy)]
pub struct Cache {
    /// Page 0.
    pub arena: At<u8>,
    /// Whether elements are bfloat16 and not binary32.
    pub is_bf16: bool,
    /// Elements of a page; a multiple of four.
    pub page: u64,
    /// Elements of a page before the keys; a multiple of four.
    pub place: u64,
}

impl Cache {
    /// Elements that the keys, or the values, of an attention take of a page.
    pub const fn elements(heads: Heads) -> u64 {
        heads.kv_count as u64 * heads.width as u64 * PAGE_TOKENS as u64
    }

    /// The address of an element of page 0.
    const fn element(&self, index: u64) -> u64 {
        self.arena.address() + index * if self.is_bf16 { 2 } else { 4 }
    }
}

/// Writes new rows of keys and values, `[rows, kv_count · width]`, to their pages: row `r` to `slots[r]`, which is the number
/// of its page times [`PAGE_TOKENS`] plus its place in it, signed as that. At least one row.
pub fn append(cache: Cache, heads: Heads, [k, v]: [At<f32>; 2], slots: At<u32>, rows: u32) -> Launch {
    const THREADS: u32 = 256;
    let elements = u64::from(rows) * u64::from(heads.kv_count) * u64::from(heads.width);
    let shape = Shape::line(elements.div_ceil(u64::from(THREADS)).min(1 << 14) as u32, THREADS);
    let (first, values) = (cache.element(cache.place), Cache::elements(heads));
    let (floats, shorts) = (At::<f32>::new(first), At::<u16>::new(first));
    let Heads { kv_count, width, .. } = heads;
    if cache.is_bf16 {
        launch!(
            "attention_append_bf16",
            shape,
            k,
            v,
            slots,
            shorts,
            cache.page,
            values,
            rows,
            kv_count,
            width
        )
    } else {
        launch!("attention_append_f32", shape, k, v, slots, floats, cache.page, values, rows, kv_count, width)
    }
}

/// A tile of queries with one head of keys, as the kernels read it.
#[derive(Debug, Clone, Copy)]
struct Item {
    row: u32,
    first: u32,
    query: u32,
    queries: u32,
    keys: u32,
    source: u32,
    head: u32,
    /// Blocks of scores before its own, in its portion.
    place: u32,
}

impl Item {
    const WORDS: u64 = 8;

    fn blocks(&self) -> u32 {
        self.keys.div_ceil(PAGE_TOKENS)
    }

    fn words(&self) -> [u32; Self::WORDS as usize] {
        let &Self { row, first, query, queries, keys, source, head, place } = self;
        [row, first, query, queries, keys, source, head, place]
    }
}

/// Tiles whose scores are in scratch memory together.
#[derive(Debug, Clone, Copy)]
struct Portion {
    first: u32,
    items: u32,
    /// Blocks of scores.
    places: u64,
    /// Blocks of keys of the longest.
    blocks: u32,
    few: bool,
    /// Whether blocks of keys are shared out.
    split: bool,
}

impl Portion {
    const fn tile(&self) -> u32 {
        if self.few { FEW } else { MANY }
    }

    /// Blocks of threads that occupy a multiprocessor.
    const fn occupy(&self) -> u64 {
        if self.few { OCCUPY_FEW } else { OCCUPY_MANY }
    }

    /// Floats of the scores, of sums of blocks of keys, and of the sums of weights.
    fn floats(&self, heads: Heads) -> [u64; 3] {
        let partials = if self.split { self.places * u64::from(heads.width) } else { 0 };
        [
            self.places * u64::from(PAGE_TOKENS),
            partials.next_multiple_of(4),
            u64::from(self.items) * u64::from(self.tile()),
        ]
    }

    fn bytes(&self, heads: Heads) -> u64 {
        self.floats(heads).iter().sum::<u64>() * size_of::<f32>() as u64
    }

    /// The portion with another tile.
    fn with(self, item: &Item) -> Self {
        Self {
            items: self.items + 1,
            places: self.places + u64::from(item.queries) * u64::from(item.blocks()),
            blocks: self.blocks.max(item.blocks()),
            ..self
        }
    }
}

/// What a batch's attentions of one shape have to do.
#[derive(Debug, Clone)]
pub struct Plan {
    heads: Heads,
    causal: bool,
    words: Vec<u32>,
    portions: Vec<Portion>,
    scratch_bytes: u64,
}

/// Keys and values, as rows of a batch or in pages.
struct Source {
    keys: u64,
    values: u64,
    pages: At<u32>,
    page: u64,
    stride: u32,
    is_bf16: bool,
}

impl Plan {
    /// Every row attends to all rows of its sequence: sequence `s` has the rows from `starts[s]` to before `starts[s + 1]`.
    pub fn full(heads: Heads, starts: &[u32], room: Room) -> Self {
        let segments = starts.windows(2).map(|ends| (ends[0], ends[1] - ends[0]));
        let segments =
            segments.map(|(row, rows)| Segment { row, rows, first: 0, pages: row }).collect::<Vec<_>>();
        Self::new((heads, false), &segments, 0, room)
    }

    /// Every row attends to itself and to the rows before it in its sequence.
    pub fn causal(heads: Heads, segments: &[Segment], room: Room) -> Self {
        Self::new((heads, true), segments, 0, room)
    }

    /// As [`Plan::causal`], with launches that are the same for all segments of these rows in sequences of up to `keys`
    /// tokens; only the words differ.
    pub fn causal_within(heads: Heads, segments: &[Segment], keys: u32, room: Room) -> Self {
        Self::new((heads, true), segments, keys, room)
    }

    /// Launches have room for `keys` keys, or for more where there are more.
    fn new((heads, causal): (Heads, bool), segments: &[Segment], keys: u32, room: Room) -> Self {
        let mut plan = Self { heads, causal, words: Vec::new(), portions: Vec::new(), scratch_bytes: 0 };
        for few in [false, true] {
            let tile = if few { FEW } else { MANY };
            let of_kind = segments.iter().filter(|it| (it.rows * heads.shared() <= STILL_FEW) == few);
            let items: Vec<Item> = of_kind.flat_map(|segment| items(heads, causal, segment, tile)).collect();
            let mut rest = &items[..];
            while !rest.is_empty() {
                let first = (plan.words.len() as u64 / Item::WORDS) as u32;
                let largest: Vec<Item> =
                    rest.iter().map(|item| Item { keys: item.keys.max(keys), ..*item }).collect();
                let portion = cut(heads, &largest, few, first, room);
                let (these, after) = rest.split_at(portion.items as usize);
                let mut place = 0;
                for item in these {
                    plan.words.extend(Item { place, ..*item }.words());
                    place += item.queries * item.blocks();
                }
                plan.scratch_bytes = plan.scratch_bytes.max(portion.bytes(heads));
                plan.portions.push(portion);
                rest = after;
            }
        }
        plan
    }

    /// What the kernels read of the plan: to be on the device, at a multiple of 16 bytes, as `words` of the launches.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Bytes of scratch memory that the launches use; what they leave there means nothing.
    pub const fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }

    /// The launches of an attention within sequences: `q` and `out` are `[rows, count · width]`, `k` and `v`
    /// `[rows, kv_count · width]`.
    pub fn attend(
        &self,
        words: At<u32>,
        [q, k, v]: [At<f32>; 3],
        scratch: At<u8>,
        out: At<f32>,
    ) -> Vec<Launch> {
        debug_assert!(!self.causal, "a causal attention reads a cache");
        let source = Source {
            keys: k.address(),
            values: v.address(),
            pages: At::none(),
            page: 0,
            stride: self.heads.kv_count * self.heads.width,
            is_bf16: false,
        };
        self.launches(words, q, &source, scratch, out)
    }

    /// The launches of an attention over a cache, to which the new rows have been appended; `pages` is the table of pages.
    /// `q` and `out` are `[rows, count · width]`.
    pub fn attend_cached(
        &self,
        words: At<u32>,
        q: At<f32>,
        (cache, pages): (Cache, At<u32>),
        scratch: At<u8>,
        out: At<f32>,
    ) -> Vec<Launch> {
        debug_assert!(self.causal, "an attention of whole sequences reads no cache");
        let source = Source {
            keys: cache.element(cache.place),
            values: cache.element(cache.place + Cache::elements(self.heads)),
            pages,
            page: cache.page,
            stride: self.heads.width,
            is_bf16: cache.is_bf16,
        };
        self.launches(words, q, &source, scratch, out)
    }

    fn launches(
        &self,
        words: At<u32>,
        q: At<f32>,
        source: &Source,
        scratch: At<u8>,
        out: At<f32>,
    ) -> Vec<Launch> {
        let portions = self.portions.iter();
        portions.flat_map(|portion| self.launches_of(portion, words, q, source, scratch, out)).collect()
    }

    fn launches_of(
        &self,
        portion: &Portion,
        words: At<u32>,
        q: At<f32>,
        source: &Source,
        scratch: At<u8>,
        out: At<f32>,
    ) -> Vec<Launch> {
        let heads = self.heads;
        let Heads { count, width, scale, .. } = heads;
        let (shared, causal) = (heads.shared(), u32::from(self.causal));
        let &Portion { items, blocks, split, .. } = portion;
        let words = words.skip(u64::from(portion.first) * Item::WORDS);
        let [scores_len, partials_len, _] = portion.floats(heads);
        let scores = At::<f32>::new(scratch.address());
        let partials = if split { scores.skip(scores_len) } else { At::none() };
        let sums = scores.skip(scores_len + partials_len);
        let tables = (source.pages, source.page, source.stride);

        let kernel = Kernels::of(portion, width);
        let name = kernel.scores[usize::from(source.is_bf16)];
        let shape = Shape::grid([items, blocks, 1], kernel.threads);
        let (pages, page, stride) = tables;
        let mut all = vec![typed(source.is_bf16, source.keys, |keys| Launch {
            kernel: name,
            shape,
            arguments: vec![
                q.into(),
                keys,
                pages.into(),
                words.into(),
                scores.into(),
                page.into(),
                stride.into(),
                count.into(),
                shared.into(),
                width.into(),
                scale.into(),
            ],
        })];

        let room = (blocks * PAGE_TOKENS).min(MOST_HELD);
        let threads = if room <= 1024 {
            128
        } else if room < MOST_HELD {
            256
        } else {
            1024
        };
        let shape =
            Shape::grid([items, portion.tile(), 1], threads).with_shared(room * size_of::<f32>() as u32);
        all.push(launch!("attention_weights", shape, scores, words, sums, shared, causal, room));

        let tiles = width.div_ceil(kernel.columns);
        let shape = Shape::grid([items, tiles, if split { blocks } else { 1 }], kernel.threads);
        all.push(typed(source.is_bf16, source.values, |values| Launch {
            kernel: kernel.outputs[usize::from(source.is_bf16)],
            shape,
            arguments: vec![
                scores.into(),
                values,
                pages.into(),
                words.into(),
                sums.into(),
                partials.into(),
                out.into(),
                page.into(),
                stride.into(),
                count.into(),
                shared.into(),
                width.into(),
                causal.into(),
            ],
        }));
        if split {
            let shape = Shape::grid([items, portion.tile(), 1], 128);
            all.push(launch!("attention_fold", shape, partials, words, sums, out, count, shared, width));
        }
        all
    }
}

/// The launch with an array of these elements at this address.
fn typed(is_bf16: bool, address: u64, launch: impl FnOnce(crate::Argument) -> Launch) -> Launch {
    launch(if is_bf16 { At::<u16>::new(address).into() } else { At::<f32>::new(address).into() })
}

/// The kernels for tiles of a size, for binary32 and for bfloat16.
struct Kernels {
    scores: [&'static str; 2],
    outputs: [&'static str; 2],
    threads: u32,
    /// Columns of a block of threads of `outputs`.
    columns: u32,
}

impl Kernels {
    fn of(portion: &Portion, width: u32) -> Self {
        let many = ["attention_scores_many_f32", "attention_scores_many_bf16"];
        if portion.few {
            Self {
                scores: ["attention_scores_few_f32", "attention_scores_few_bf16"],
                outputs: ["attention_outputs_few_f32", "attention_outputs_few_bf16"],
                threads: 128,
                columns: 128,
            }
        } else if width <= 64 {
            let outputs = ["attention_outputs_narrow_f32", "attention_outputs_narrow_bf16"];
            Self { scores: many, outputs, threads: 256, columns: 64 }
        } else {
            let outputs = ["attention_outputs_wide_f32", "attention_outputs_wide_bf16"];
            Self { scores: many, outputs, threads: 256, columns: 128 }
        }
    }
}

/// The tiles of a segment, head by head.
fn items(heads: Heads, causal: bool, segment: &Segment, tile: u32) -> impl Iterator<Item = Item> {
    let (segment, shared) = (*segment, heads.shared());
    let queries = segment.rows * shared;
    let tiles = (0..queries).step_by(tile as usize);
    tiles.flat_map(move |query| {
        let queries = tile.min(queries - query);
        let keys = if causal { segment.first + (query + queries - 1) / shared + 1 } else { segment.rows };
        (0..heads.kv_count).map(move |head| Item {
            row: segment.row,
            first: segment.first,
            query,
            queries,
            keys,
            source: segment.pages,
            head,
            place: 0,
        })
    })
}

/// The first of the tiles, as many as fit into the scratch memory, and at least one.
fn cut(heads: Heads, items: &[Item], few: bool, first: u32, room: Room) -> Portion {
    let empty = |split| Portion { first, items: 0, places: 0, blocks: 0, few, split };
    let fitting = |split| {
        let mut portion = empty(split).with(&items[0]);
        for item in &items[1..] {
            let more = portion.with(item);
            if more.bytes(heads) > room.scratch_bytes || more.places > u64::from(u32::MAX) {
                break;
            }
            portion = more;
        }
        portion
    };
    let portion = fitting(false);
    let threads = u64::from(portion.items) * u64::from(heads.width.div_ceil(128));
    let is_busy = threads >= portion.occupy() * u64::from(room.multiprocessors);
    if is_busy || portion.blocks == 1 { portion } else { fitting(true) }
}
