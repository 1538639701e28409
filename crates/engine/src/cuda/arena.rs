//! Pages of keys and values in a device's memory.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Error, Result};

use super::{Array, Device};
use crate::kernels::KvType;

/// Memory for pages of one size, all in one array, so that a page is told by its index. The array grows as pages are taken;
/// who takes them keeps count. Clones are the same arena.
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
    memory: Option<Array<u8>>,
    /// Pages that the memory has room for.
    room: usize,
    /// Pages that were ever taken: the first of them.
    taken: usize,
    /// Those of them that were given back.
    free: Vec<u32>,
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
    pub(crate) fn take(&self) -> Result<u32> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = state.free.pop() {
            return Ok(page);
        }
        if state.taken == state.room {
            self.grow(&mut state)?;
        }
        state.taken += 1;
        u32::try_from(state.taken - 1).map_err(Error::wrap)
    }

    /// Makes room for twice as many pages. What is there moves, after all that was launched before.
    fn grow(&self, state: &mut State) -> Result<()> {
        let Inner { device, page_elements, kind, .. } = &*self.0;
        let page_bytes = page_elements * kind.bytes();
        let room = (2 * state.room).max(1);
        let mut memory = Array::scratch(device, room * page_bytes)?;
        if let Some(before) = &state.memory {
            memory.copy_front(device, before, state.room * page_bytes)?;
        }
        (state.memory, state.room) = (Some(memory), room);
        Ok(())
    }

    /// Gives pages back.
    pub(crate) fn give_back(&self, pages: &mut Vec<u32>) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).free.append(pages);
    }

    /// The memory as it is now, if any page was taken. It stays where it is until another page is taken.
    pub(crate) fn memory(&self) -> Option<Array<u8>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).memory.clone()
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
