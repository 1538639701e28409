//! Pages of keys and values in a device's memory.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, bail};
use gainsay_cuda_launch::At;

use super::{Array, Device};
use crate::kernels::{KvType, PAGE_TOKENS};

/// Bytes of a chunk that is taken for more than a page.
const MOST_BYTES: usize = 1 << 30;
/// Page numbers are less than this from 0: times the tokens of a page they are 32-bit integers.
const REACH: i64 = (1 << 31) / PAGE_TOKENS as i64;

/// Memory for pages of one size. It grows by chunks as pages are taken; who takes them keeps count. Nothing that was taken
/// moves: a page's number says how many pages it lies behind page 0, the first of the first chunk, or before it, wherever its own
/// chunk may be. Clones are the same arena.
#[derive(Clone)]
pub(crate) struct Arena(Arc<Inner>);

struct Inner {
    device: Device,
    page_elements: usize,
    kind: KvType,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The first stays as long as the arena: others are counted from it.
    chunks: Vec<Array<u8>>,
    /// Pages of all chunks.
    pages: usize,
    /// Pages of the last chunk that were never taken.
    fresh: Range<i64>,
    /// Pages that were given back.
    free: Vec<i32>,
    in_use: usize,
}

impl Arena {
    /// An arena without pages.
    pub(crate) fn new(device: &Device, page_elements: usize, kind: KvType) -> Self {
        Self(Arc::new(Inner { device: device.clone(), page_elements, kind, state: Mutex::default() }))
    }

    /// Takes a page, with whatever it holds.
    ///
    /// # Errors
    /// The device has no more memory.
    pub(crate) fn take(&self) -> Result<i32> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let page = match state.free.pop() {
            Some(page) => page,
            None => {
                if state.fresh.is_empty() {
                    self.grow(&mut state)?;
                }
                let page = state.fresh.start;
                state.fresh.start += 1;
                page as i32
            }
        };
        state.in_use += 1;
        Ok(page)
    }

    /// Takes a chunk of as many pages as there are, as far as that is sensible.
    fn grow(&self, state: &mut State) -> Result<()> {
        let bytes = self.page_bytes();
        let pages = state.pages.clamp(1, (MOST_BYTES / bytes).max(1));
        let Some(first) = state.chunks.first() else {
            state.chunks.push(Array::scratch(&self.0.device, pages * bytes)?);
            (state.pages, state.fresh) = (pages, 0..pages as i64);
            return Ok(());
        };
        // A page more, for a chunk that does not begin at a whole number of pages from the first.
        let chunk = Array::scratch(&self.0.device, (pages + 1) * bytes)?;
        let apart = chunk.at().address().cast_signed() - first.at().address().cast_signed();
        let page = bytes as i64;
        let number = apart.div_euclid(page) + i64::from(apart.rem_euclid(page) > 0);
        if number < -REACH || number + pages as i64 > REACH {
            bail!("the device's memory for pages is {number} pages away")
        }
        state.chunks.push(chunk);
        state.pages += pages;
        state.fresh = number..number + pages as i64;
        Ok(())
    }

    /// Gives pages back. The memory of an arena that nobody uses goes back too, but for the first chunk.
    pub(crate) fn give_back(&self, pages: &mut Vec<i32>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_use -= pages.len();
        state.free.append(pages);
        if state.in_use == 0 && state.chunks.len() > 1 {
            let first = state.chunks[0].len() / self.page_bytes();
            state.chunks.truncate(1);
            state.free.clear();
            (state.pages, state.fresh) = (first, 0..first as i64);
        }
    }

    /// Where page 0 is, if any page was taken.
    pub(crate) fn base(&self) -> Option<At<u8>> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.chunks.first().map(Array::at)
    }

    fn page_bytes(&self) -> usize {
        self.0.page_elements * self.0.kind.bytes()
    }

    /// Elements of a page.
    pub(crate) fn page_elements(&self) -> usize {
        self.0.page_elements
    }

    /// What they are.
    pub(crate) fn kind(&self) -> KvType {
        self.0.kind
    }

    /// Whether two are one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
