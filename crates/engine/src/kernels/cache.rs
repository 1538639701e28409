//! The keys and values of a running sequence, in pages.
//!
//! A page holds [`PAGE_TOKENS`] tokens for every causal attention of a model: just the keys of one block of a dot product,
//! so that blocks, counted from the start of the sequence, never straddle pages. Within it keys lie in panels, as the
//! product with queries reads them, and values in rows, as the product with weights does. A sequence takes pages from a
//! [`PagePool`] as it grows and gives them back when it ends.

use std::sync::{Arc, Mutex, PoisonError};

use super::buffer::AlignedBuffer;
use super::lanes::{Bf16, Element};
use crate::machine::Machine;

/// Tokens of a page.
pub(crate) const PAGE_TOKENS: usize = gainsay_arithmetic::BLOCK;
/// Elements beyond the last value that a vector load may touch.
const SLACK: usize = 64;

/// How keys and values are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvType {
    /// As they are.
    F32,
    /// As bfloat16: the program has rounded them to that.
    Bf16,
}

#[cfg(feature = "cuda")]
impl KvType {
    /// Bytes of an element.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Where the keys and values of one attention are in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvPlace {
    /// Heads of the keys and values.
    heads: usize,
    /// Columns of a head.
    width: usize,
    /// Keys side by side in a panel.
    panel: usize,
    /// Element of a page where the keys begin; the values follow them.
    keys: usize,
}

impl KvPlace {
    /// Element of a page where the keys begin. In a layout of panels of one key, those of each head follow each other, each
    /// `[token][column]`, and the values after them likewise.
    #[cfg(feature = "cuda")]
    pub(crate) fn keys(self) -> usize {
        self.keys
    }

    /// Elements of the keys, or of the values, of one head.
    fn head_elements(self) -> usize {
        PAGE_TOKENS * self.width
    }

    /// Where the key of a token is: its first column; the others follow at steps of a panel.
    fn key(self, head: usize, slot: usize) -> usize {
        let panel = slot / self.panel * self.panel * self.width;
        self.keys + head * self.head_elements() + panel + slot % self.panel
    }

    /// Where the value of a token is.
    fn value(self, head: usize, slot: usize) -> usize {
        self.keys + (self.heads + head) * self.head_elements() + slot * self.width
    }
}

/// The layout of the pages of a model.
#[derive(Debug, Clone)]
pub(crate) struct KvLayout {
    panel: usize,
    elements: usize,
}

impl KvLayout {
    /// A page without attentions, whose keys will lie in panels of `panel`.
    pub(crate) fn new(panel: usize) -> Self {
        assert!(PAGE_TOKENS.is_multiple_of(panel), "panels fill a page");
        Self { panel, elements: 0 }
    }

    /// Makes room for an attention with so many heads of keys.
    pub(crate) fn add(&mut self, heads: usize, width: usize) -> KvPlace {
        let place = KvPlace { heads, width, panel: self.panel, keys: self.elements };
        self.elements += 2 * heads * width * PAGE_TOKENS;
        place
    }

    /// Whether there is no attention to keep keys for.
    pub(crate) fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// Floats of a page's memory.
    fn floats(&self, kind: KvType) -> usize {
        match kind {
            KvType::F32 => self.elements + SLACK,
            KvType::Bf16 => (self.elements + SLACK).div_ceil(2),
        }
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(&self, kind: KvType) -> u64 {
        (self.floats(kind) * size_of::<f32>()) as u64
    }
}

/// Memory for pages, reused from sequence to sequence. It grows as pages are taken; who takes them keeps count.
#[derive(Clone)]
pub(crate) struct PagePool {
    kind: KvType,
    memory: Memory,
}

/// Where pages lie.
#[derive(Clone)]
enum Memory {
    Host {
        floats: usize,
        free: Arc<Mutex<Vec<AlignedBuffer>>>,
    },
    #[cfg(feature = "cuda")]
    Device(crate::cuda::Arena),
}

/// Pages that were taken.
enum Pages {
    Host(Vec<AlignedBuffer>),
    #[cfg(feature = "cuda")]
    Device(Vec<i32>),
}

impl PagePool {
    /// A pool of pages of this layout, in the machine's memory.
    pub(crate) fn new(layout: &KvLayout, kind: KvType) -> Self {
        Self { kind, memory: Memory::Host { floats: layout.floats(kind), free: Arc::default() } }
    }

    /// A pool of pages of this layout, where a machine computes.
    pub(crate) fn on(machine: &Machine, layout: &KvLayout, kind: KvType) -> Self {
        match machine {
            Machine::Cpu(_) => Self::new(layout, kind),
            #[cfg(feature = "cuda")]
            Machine::Cuda(device) => {
                let arena = crate::cuda::Arena::new(device, layout.elements, kind);
                Self { kind, memory: Memory::Device(arena) }
            }
        }
    }
}

/// Keys and values of one sequence.
pub(crate) struct KvCache {
    pool: PagePool,
    pages: Pages,
}

impl Drop for KvCache {
    fn drop(&mut self) {
        self.clear();
    }
}

impl KvCache {
    /// Nothing yet.
    pub(crate) fn new(pool: &PagePool) -> Self {
        let pages = match pool.memory {
            Memory::Host { .. } => Pages::Host(Vec::new()),
            #[cfg(feature = "cuda")]
            Memory::Device(_) => Pages::Device(Vec::new()),
        };
        Self { pool: pool.clone(), pages }
    }

    /// How keys and values are held.
    pub(crate) fn kind(&self) -> KvType {
        self.pool.kind
    }

    /// Forgets everything and gives the pages back.
    pub(crate) fn clear(&mut self) {
        match (&self.pool.memory, &mut self.pages) {
            (Memory::Host { free, .. }, Pages::Host(pages)) => {
                free.lock().unwrap_or_else(PoisonError::into_inner).append(pages);
            }
            #[cfg(feature = "cuda")]
            (Memory::Device(arena), Pages::Device(pages)) => arena.give_back(pages),
            #[cfg(feature = "cuda")]
            _ => unreachable!("pages lie where their pool is"),
        }
    }

    /// Takes the pages that hold `tokens` tokens.
    ///
    /// # Errors
    /// A device has no more memory.
    pub(crate) fn grow(&mut self, tokens: usize) -> candle_core::Result<()> {
        let due = tokens.div_ceil(PAGE_TOKENS);
        match (&self.pool.memory, &mut self.pages) {
            (Memory::Host { floats, free }, Pages::Host(pages)) => {
                while pages.len() < due {
                    let kept = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    pages.push(kept.unwrap_or_else(|| AlignedBuffer::zeroed(*floats)));
                }
            }
            #[cfg(feature = "cuda")]
            (Memory::Device(arena), Pages::Device(pages)) => {
                while pages.len() < due {
                    pages.push(arena.take()?);
                }
            }
            #[cfg(feature = "cuda")]
            _ => unreachable!("pages lie where their pool is"),
        }
        Ok(())
    }

    /// A page in the machine's memory.
    #[inline(always)]
    fn page(&self, page: usize) -> &AlignedBuffer {
        match &self.pages {
            Pages::Host(pages) => &pages[page],
            #[cfg(feature = "cuda")]
            Pages::Device(_) => unreachable!("kernels of the CPU read no device's memory"),
        }
    }

    /// A page in the machine's memory, to be written.
    fn page_mut(&mut self, page: usize) -> &mut AlignedBuffer {
        match &mut self.pages {
            Pages::Host(pages) => &mut pages[page],
            #[cfg(feature = "cuda")]
            Pages::Device(_) => unreachable!("kernels of the CPU write no device's memory"),
        }
    }

    /// The arena that its pages lie in, and their numbers, on a device.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(&self) -> Option<(&crate::cuda::Arena, &[i32])> {
        match (&self.pool.memory, &self.pages) {
            (Memory::Device(arena), Pages::Device(pages)) => Some((arena, pages)),
            _ => None,
        }
    }

    /// Writes the keys and values of the tokens from `first` on, row-major, of one attention.
    pub(crate) fn append(&mut self, place: KvPlace, first: usize, keys: &[f32], values: &[f32]) {
        match self.pool.kind {
            KvType::F32 => self.write(place, first, keys, values, |x| x),
            KvType::Bf16 => self.write(place, first, keys, values, |x| Bf16((x.to_bits() >> 16) as u16)),
        }
    }

    fn write<E: Element>(
        &mut self,
        place: KvPlace,
        first: usize,
        keys: &[f32],
        values: &[f32],
        narrow: impl Fn(f32) -> E,
    ) {
        let row = place.heads * place.width;
        assert!(keys.len() == values.len() && keys.len().is_multiple_of(row), "whole rows");
        let rows = keys.chunks_exact(row).zip(values.chunks_exact(row));
        for (token, (keys, values)) in (first..).zip(rows) {
            let page = self.page_mut(token / PAGE_TOKENS).as_mut_slice();
            let page: &mut [E] = bytemuck::cast_slice_mut(page);
            let slot = token % PAGE_TOKENS;
            let heads = keys.chunks_exact(place.width).zip(values.chunks_exact(place.width));
            for (head, (keys, values)) in heads.enumerate() {
                let at = place.key(head, slot);
                let columns = page[at..].iter_mut().step_by(place.panel);
                columns.zip(keys).for_each(|(out, &key)| *out = narrow(key));
                let at = place.value(head, slot);
                page[at..][..place.width].iter_mut().zip(values).for_each(|(out, &x)| *out = narrow(x));
            }
        }
    }

    /// The keys of one head in one page, a panel after the other, each `[column][key]`.
    #[inline(always)]
    pub(super) fn keys<E: Element>(&self, place: KvPlace, head: usize, page: usize) -> &[E] {
        let page: &[E] = bytemuck::cast_slice(self.page(page).as_slice());
        &page[place.key(head, 0)..][..place.head_elements()]
    }

    /// The values of one head in one page, `[key][column]`, and what follows them in the page, at least [`SLACK`].
    #[inline(always)]
    pub(super) fn values<E: Element>(&self, place: KvPlace, head: usize, page: usize) -> &[E] {
        let page: &[E] = bytemuck::cast_slice(self.page(page).as_slice());
        &page[place.value(head, 0)..]
    }

    /// One token's key and value, of one head, widened.
    pub(super) fn token(&self, place: KvPlace, head: usize, token: usize) -> (Vec<f32>, Vec<f32>) {
        match self.pool.kind {
            KvType::F32 => self.token_of(place, head, token, |x: f32| x),
            KvType::Bf16 => self.token_of(place, head, token, |x: Bf16| gainsay_arithmetic::widen_bf16(x.0)),
        }
    }

    fn token_of<E: Element>(
        &self,
        place: KvPlace,
        head: usize,
        token: usize,
        widen: impl Fn(E) -> f32,
    ) -> (Vec<f32>, Vec<f32>) {
        let page: &[E] = bytemuck::cast_slice(self.page(token / PAGE_TOKENS).as_slice());
        let slot = token % PAGE_TOKENS;
        let keys = page[place.key(head, slot)..].iter().step_by(place.panel);
        let values = &page[place.value(head, slot)..];
        let take = |x: &E| widen(*x);
        (keys.take(place.width).map(take).collect(), values[..place.width].iter().map(take).collect())
    }
}
