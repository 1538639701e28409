//! How many deliveries go where, so that none takes the room of all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gainsay_protocol::OwnerId;

/// Deliveries under way of one submitter.
const OF_SUBMITTER: usize = 8;
/// Deliveries under way to one address.
const TO_ADDRESS: usize = 4;

/// What takes a bounded number of deliveries at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Submitter(OwnerId),
    Address(IpAddr),
}

impl Place {
    fn most(self) -> usize {
        match self {
            Self::Submitter(_) => OF_SUBMITTER,
            Self::Address(_) => TO_ADDRESS,
        }
    }
}

/// Deliveries under way by place.
#[derive(Debug, Default)]
pub(super) struct Busy(Mutex<HashMap<Place, usize>>);

impl Busy {
    /// A turn at a place; none where it has as many as it may.
    pub(super) fn begin(self: &Arc<Self>, place: Place) -> Option<Turn> {
        let mut counts = self.lock();
        let count = counts.entry(place).or_default();
        if *count >= place.most() {
            return None;
        }
        *count += 1;
        Some(Turn { busy: Arc::clone(self), place })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One delivery's turn at a place, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    busy: Arc<Busy>,
    place: Place,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.busy.lock();
        let Some(count) = counts.get_mut(&self.place) else { return };
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_full_keeps_nobody_from_another() {
        let busy = Arc::new(Busy::default());
        let address = |n: u8| Place::Address([1, 1, 1, n].into());
        let turns: Vec<Turn> = std::iter::from_fn(|| busy.begin(address(1))).collect();
        assert_eq!(turns.len(), TO_ADDRESS);
        assert!(busy.begin(address(2)).is_some());
        drop(turns);
        assert!(busy.begin(address(1)).is_some());
        assert!(busy.lock().is_empty(), "what has nothing under way takes no room");
    }
}
